"""The metrics page: names and labels."""

from tests.golden.build import one, request
from tests.golden.scenario import Http, Scenario

SCENARIOS: list[Scenario] = [
    one("page", Http((request("GET", "/metrics"),), port="metrics")),
    one("page_with_slash", Http((request("GET", "/metrics/"),), port="metrics")),
]

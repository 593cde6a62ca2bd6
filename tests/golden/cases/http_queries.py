"""Metadata, configuration, health and statistics."""

from tests.golden.build import get, infer, one, tensor
from tests.golden.configurations import CONFIGURATIONS
from tests.golden.scenario import Pause, Scenario

LOOKUPS = {
    "unknown_model": "/v2/models/nope",
    "unknown_version": "/v2/models/add_sub/versions/7",
    "version_zero": "/v2/models/add_sub/versions/0",
    "leading_zeros": "/v2/models/add_sub/versions/0001",
    "version_that_is_not_served": "/v2/models/versions/versions/2",
    "older_version": "/v2/models/versions/versions/1",
    "newest_version": "/v2/models/versions",
    "version_too_large": "/v2/models/add_sub/versions/99999999999999999999",
    "largest_version": "/v2/models/add_sub/versions/9223372036854775807",
    "version_just_too_large": "/v2/models/add_sub/versions/9223372036854775808",
    "unknown_model_and_large_version": "/v2/models/nope/versions/99999999999999999999",
}
FOUND = {"leading_zeros", "older_version", "newest_version"}
"""Lookups that succeed."""


def counted(value: int, *more: int) -> dict[str, object]:
    """A request to the model whose statistics are looked at."""
    values = [value, *more]
    return {"inputs": [tensor("IN", "INT32", [len(values), 1], values)]}


SCENARIOS: list[Scenario] = [
    *[one(f"metadata of {model}", get(f"/v2/models/{model}")) for model in CONFIGURATIONS["core"].models],
    *[one(f"config of {model}", get(f"/v2/models/{model}/config")) for model in CONFIGURATIONS["core"].models],
    *[one(f"metadata {name}", get(path)) for name, path in LOOKUPS.items()],
    *[one(f"config {name}", get(f"{path}/config")) for name, path in LOOKUPS.items()],
    *[one(f"ready {name}", get(f"{path}/ready")) for name, path in LOOKUPS.items()],
    *[one(f"statistics {name}", get(f"{path}/stats")) for name, path in LOOKUPS.items() if name not in FOUND],
    *[
        one(f"infer {name}", infer(path.removeprefix("/v2/models/"), {"inputs": [tensor("IN", "INT32", [1], [5])]}))
        for name, path in LOOKUPS.items()
    ],
    one(
        "statistics after",
        infer("counted", counted(1)),
        infer("counted", counted(1, 2, 3)),
        infer("counted", counted(13)),
        infer("counted", {"inputs": []}),
        infer("counted", counted(*range(9))),
        Pause(0.5),  # statistics follow the answer
        get("/v2/models/counted/stats"),
        get("/v2/models/counted/versions/1/stats"),
    ),
]

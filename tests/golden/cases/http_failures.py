"""What models do wrong, over HTTP."""

from tests.golden.build import binary, get, infer, one, strings, tensor
from tests.golden.scenario import Http, Scenario

CODES = ("UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS", "CANCELLED")
DOES = ("raise", "too many", "other output", "no output", "with output", "fine")


def tell(what: str, **members: object) -> Http:
    """A request to errors."""
    return infer("errors", {**members, "inputs": [tensor("WHAT", "BYTES", [1], [what])]})


SCENARIOS: list[Scenario] = [
    *[one(f"code {code}", tell(f"{code} because {code}")) for code in CODES],
    one("code default", tell("PLAIN no code")),
    one("code with_id", tell("INTERNAL x", id="7")),
    one("message_empty", tell("INTERNAL ")),
    one("message_unicode", tell("INTERNAL é日本")),
    one("message_with_quotes", tell('INTERNAL say "no"\\ \n\t/')),
    one(
        "message_not_utf8",
        binary("errors", {"inputs": [tensor("WHAT", "BYTES", [1], binary_data_size=14)]}, strings(b"INTERNAL \xc3")),
    ),
    *[one(what, tell(what)) for what in DOES],
    one("missing_requested_output", tell("no output", outputs=[{"name": "OUT"}])),
    one("model_after_failure", tell("raise"), tell("fine"), get("/v2/models/errors/ready")),
]

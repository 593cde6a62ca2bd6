"""What models do wrong, over gRPC."""

from typing import Any

from tests.golden.build import one, proto_infer, proto_output, proto_tensor, rpc, strings
from tests.golden.cases.http_failures import CODES, DOES
from tests.golden.scenario import Grpc, Scenario


def told(what: str, *outputs: Any, **fields: Any) -> Any:
    """A message to errors."""
    inputs = [proto_tensor("WHAT", "BYTES", [1])]
    return proto_infer("errors", inputs, [strings(what.encode())], outputs, **fields)


def tell(what: str, *outputs: Any, **fields: Any) -> Grpc:
    """A request to errors."""
    return rpc("ModelInfer", told(what, *outputs, **fields))


SCENARIOS: list[Scenario] = [
    *[one(f"code {code}", tell(f"{code} because {code}")) for code in CODES],
    one("code with_id", tell("INTERNAL x", id="7")),
    one("message_empty", tell("INTERNAL ")),
    one("message_unicode", tell("INTERNAL é日本")),
    *[one(what, tell(what)) for what in DOES],
    one("missing_requested_output", tell("no output", proto_output("OUT"))),
]

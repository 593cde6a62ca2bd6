"""Models as people write them first: metrics of their own, what they are told, texts through an ensemble."""

from tests.golden.build import (
    fp32,
    get,
    http,
    infer,
    infer_path,
    one,
    post,
    proto_infer,
    proto_tensor,
    rpc,
    strings,
    tensor,
)
from tests.golden.scenario import Http, Scenario

ASKED = (
    "model_name",
    "model_version",
    "model_instance_name",
    "model_instance_kind",
    "model_instance_device_id",
    "types",
    "parameter",
    "groups",
    "output_type",
    "no_input",
    "decoupled",
)


def measure(number: float) -> Http:
    """A request to the model with metrics."""
    return infer("measured", {"inputs": [tensor("NUMBER", "FP32", [1], [number])]})


def score(*texts: str) -> Http:
    """A request to the ensemble."""
    return infer("text_pipeline", {"inputs": [tensor("TEXT", "BYTES", [len(texts), 1], list(texts))]})


SCENARIOS: list[Scenario] = [
    *[one(name, infer("whoami", {"inputs": [tensor("ASKED", "BYTES", [1], [name])]})) for name in ASKED],
    one("metrics", measure(2), http("GET", "/metrics")._replace(port="metrics")),
    one("metric without a family", measure(13)),
    one("text", score("one word")),
    one("texts", score("a", "two words", "Größe zählt", "1 22 333 4444 55555 666666 7777777 88888888 999999999")),
    one("too many texts", score(*"abcde")),
    one("no word", score("")),
    one("no word in one", score("some", " ")),
    one(
        "text grpc",
        rpc("ModelInfer", proto_infer("text_pipeline", [proto_tensor("TEXT", "BYTES", [1, 1])], [strings(b"a bcd")])),
    ),
    one("text generate", post(infer_path("text_pipeline", verb="generate"), {"TEXT": "three more words"})),
    one("steps alone", infer("tokenizer", {"inputs": [tensor("TEXT", "BYTES", [2, 1], ["a b", "c"])]})),
    one("metadata of a step", get("/v2/models/scorer")),
    one(
        "wrong datatype",
        rpc("ModelInfer", proto_infer("text_pipeline", [proto_tensor("TEXT", "FP32", [1, 1])], [fp32(1)])),
    ),
]

"""Short ways to write down requests: HTTP ones as bytes, gRPC ones as messages of tritonclient's descriptors."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tritonclient.grpc import model_config_pb2, service_pb2

from tests.golden.exchange import INFERENCE
from tests.golden.scenario import Grpc, Http, Scenario, Step

Json: TypeAlias = Mapping[str, Any] | Sequence[Any] | str | bytes

__all__ = ["INFERENCE", "model_config_pb2", "service_pb2"]


def one(name: str, *steps: Step) -> Scenario:
    """A scenario."""
    return Scenario(name, steps)


# ----------------------------------------------------------------------------------------------- HTTP


def body_of(content: Json) -> bytes:
    """A document as compact JSON; text and bytes as they are."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    return json.dumps(content, separators=(",", ":")).encode()


def request(method: str, path: str, content: Json = b"", *headers: str, version: str = "1.1") -> bytes:
    """The bytes of a request. It has a Content-Length when it has a body or is a POST, unless `headers` frame it."""
    body = body_of(content)
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers]
    is_framed = any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers)
    if (body or method == "POST") and not is_framed:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def http(method: str, path: str, content: Json = b"", *headers: str) -> Http:
    """One request on a connection of its own."""
    return Http((request(method, path, content, *headers),))


def get(path: str, *headers: str) -> Http:
    """A GET."""
    return http("GET", path, b"", *headers)


def post(path: str, content: Json = b"", *headers: str) -> Http:
    """A POST."""
    return http("POST", path, content, *headers)


def infer_path(model: str, version: str = "", verb: str = "infer") -> str:
    """The path of a model's inference."""
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + f"/{verb}"


def infer(model: str, document: Json, *headers: str, version: str = "") -> Http:
    """An inference request without a binary section."""
    return post(infer_path(model, version), document, *headers)


def binary(model: str, document: Json, *blobs: bytes, headers: Sequence[str] = (), length: str = "") -> Http:
    """An inference request with a binary section; `length` replaces the length of the JSON part in its header."""
    text = body_of(document)
    header = f"Inference-Header-Content-Length: {length or len(text)}"
    return post(infer_path(model), text + b"".join(blobs), header, *headers)


def tensor(name: str, datatype: str, shape: Sequence[Any], data: Any = None, **parameters: Any) -> dict[str, Any]:
    """An entry of `inputs`; without `data` the parameters say where they are."""
    entry: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
    entry |= {"parameters": parameters} if parameters else {}
    return entry | ({} if data is None else {"data": data})


def output(name: str, **parameters: Any) -> dict[str, Any]:
    """An entry of `outputs`."""
    return {"name": name} | ({"parameters": parameters} if parameters else {})


# ----------------------------------------------------------------------------------------------- bytes


def fp32(*values: float) -> bytes:
    """Values as FP32."""
    return struct.pack(f"<{len(values)}f", *values)


def int32(*values: int) -> bytes:
    """Values as INT32."""
    return struct.pack(f"<{len(values)}i", *values)


def strings(*values: bytes) -> bytes:
    """Elements of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


# ----------------------------------------------------------------------------------------------- gRPC


def rpc(method: str, request: Any = b"", *metadata: tuple[str, str]) -> Grpc:
    """A call with one message."""
    data = request if isinstance(request, bytes) else request.SerializeToString(deterministic=True)
    return Grpc(method if "/" in method else f"{INFERENCE}/{method}", (data,), metadata)


def stream(*requests: Any, metadata: Sequence[tuple[str, str]] = ()) -> Grpc:
    """A call of ModelStreamInfer."""
    data = tuple(each.SerializeToString(deterministic=True) for each in requests)
    return Grpc(f"{INFERENCE}/ModelStreamInfer", data, tuple(metadata))


def parameter(value: Any) -> Any:
    """An InferParameter: bool, int, str or float; `("uint64", 1)` names the field, None leaves all unset."""
    if value is None:
        return service_pb2.InferParameter()
    if isinstance(value, tuple):
        return service_pb2.InferParameter(**{f"{value[0]}_param": value[1]})
    fields = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return service_pb2.InferParameter(**{fields[type(value)]: value})


def add_parameters(target: Any, values: Mapping[str, Any]) -> None:
    """Fill a map of parameters."""
    for name, value in values.items():
        target[name].CopyFrom(parameter(value))


def proto_tensor(
    name: str,
    datatype: str,
    shape: Sequence[int],
    contents: Mapping[str, Sequence[Any]] | None = None,
    **parameters: Any,
) -> Any:
    """An InferInputTensor; `contents` by field without its suffix, such as `{"fp32": [1.0]}`."""
    message = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for field, values in (contents or {}).items():
        getattr(message.contents, f"{field}_contents").extend(values)
    add_parameters(message.parameters, parameters)
    return message


def proto_output(name: str, **parameters: Any) -> Any:
    """An InferRequestedOutputTensor."""
    message = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name)
    add_parameters(message.parameters, parameters)
    return message


def proto_infer(
    model: str,
    inputs: Sequence[Any] = (),
    raw: Sequence[bytes] = (),
    outputs: Sequence[Any] = (),
    parameters: Mapping[str, Any] | None = None,
    **fields: str,
) -> Any:
    """A ModelInferRequest; `fields` are `id` and `model_version`."""
    message = service_pb2.ModelInferRequest(
        model_name=model, inputs=inputs, outputs=outputs, raw_input_contents=raw, **fields
    )
    add_parameters(message.parameters, parameters or {})
    return message

"""tritonclient over HTTP and gRPC behind one small face, and errors told apart."""

import contextlib
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy.typing as npt
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support.server import Server

Array = npt.NDArray[Any]

PROTOCOLS = ("http", "grpc")
SECONDS = 60.0

UNAVAILABLE = {"http": "503", "grpc": "StatusCode.UNAVAILABLE"}
INVALID = {"http": "400", "grpc": "StatusCode.INVALID_ARGUMENT"}
NOT_FOUND = {"http": "404", "grpc": "StatusCode.NOT_FOUND"}


class Client:
    """One connection of its own, made by the unmodified tritonclient. `raw` is its client object."""

    def __init__(self, protocol: str, server: Server, seconds: float = SECONDS) -> None:
        """`seconds` bounds each request."""
        self.protocol = protocol
        self._module: Any = http_client if protocol == "http" else grpc_client
        self._timeout: dict[str, Any] = {}
        address = server.address(protocol)
        if protocol == "http":
            self.raw: Any = http_client.InferenceServerClient(
                address, connection_timeout=seconds, network_timeout=seconds
            )
        else:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
            options += [("grpc.max_send_message_length", -1)]
            self.raw = grpc_client.InferenceServerClient(address, channel_args=options)
            self._timeout = {"client_timeout": seconds}

    def infer(
        self, model: str, inputs: Mapping[str, Array], is_binary: bool = True, **options: Any
    ) -> dict[str, Array]:
        """Every output by name. Raises InferenceServerException and what the connection raises."""
        return self.outputs(self.result(model, inputs, is_binary, **options))

    def result(self, model: str, inputs: Mapping[str, Array], is_binary: bool = True, **options: Any) -> Any:
        """tritonclient's result. With `is_binary` False, HTTP sends and asks for JSON."""
        form = {} if self.protocol == "grpc" else {"binary_data": is_binary}
        tensors = []
        for name, array in inputs.items():
            tensors.append(self._module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
            tensors[-1].set_data_from_numpy(array, **form)
        if not is_binary and "outputs" not in options:
            names = [output["name"] for output in self.metadata(model)["outputs"]]
            options["outputs"] = [self._module.InferRequestedOutput(name, **form) for name in names]
        return self.raw.infer(model, tensors, **options, **self._timeout)

    def outputs(self, result: Any) -> dict[str, Array]:
        """The arrays of a result by name."""
        response = result.get_response()
        outputs = response["outputs"] if self.protocol == "http" else response.outputs
        names = [output["name"] if self.protocol == "http" else output.name for output in outputs]
        return {name: result.as_numpy(name) for name in names}

    def metadata(self, model: str, version: str = "") -> Any:
        """The model metadata as JSON."""
        return self.raw.get_model_metadata(model, version, **self._json())

    def statistics(self, model: str) -> dict[str, Any]:
        """The first entry of `model_stats`, with numbers as integers."""
        (found,) = self.raw.get_inference_statistics(model, **self._json())["model_stats"]
        return {name: _integers(value) for name, value in found.items()}

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self.raw.close()

    def _json(self) -> dict[str, Any]:
        return {"as_json": True} if self.protocol == "grpc" else {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def status_of(error: BaseException) -> str:
    """The status that the server answered: `503`, `StatusCode.UNAVAILABLE` ...; empty when it did not answer."""
    if isinstance(error, InferenceServerException):
        return str(error.status() or "")
    return ""


def is_cut(error: BaseException) -> bool:
    """Whether the connection failed, so that there is no answer of the server's."""
    if isinstance(error, InferenceServerException):
        is_channel = re.search("Stream removed|Socket closed|failed to connect|Connection re(set|fused)", str(error))
        return error.status() == "StatusCode.UNAVAILABLE" and is_channel is not None
    return isinstance(error, (OSError, HTTPConnectionClosed, HTTPParseError))


def _integers(value: Any) -> Any:
    """gRPC's JSON has 64-bit integers as text."""
    if isinstance(value, dict):
        return {key: _integers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_integers(each) for each in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value

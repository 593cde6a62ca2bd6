"""ONNX models on a real server: files alone, operators of one's own, and files that are broken."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, Client
from tests.support.onnx_graphs import helper, library_of_operators, model, onnx, save, unary, upper
from tests.support.repository import instances, write_model
from tests.support.server import Server
from tests.support.waiting import until

pytest.importorskip("onnxruntime")

SECONDS = 60.0


def weighted() -> bytes:
    """A model with weights in its file: `y = x + w`."""
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", floats, ("n", 64))],
        [helper.make_tensor_value_info("y", floats, ("n", 64))],
        [onnx.numpy_helper.from_array(np.zeros(64, np.float32), "w")],
    )
    whole: bytes = model(graph).SerializeToString()
    return whole


def external(directory: Path, size: int | None) -> None:
    """The same, with its weights in a file `weights` of so many bytes; None: without that file."""
    made = onnx.load_from_string(weighted())
    onnx.save(made, directory / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    weights = directory / "weights"
    if size is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:size])


def torn(whole: bytes) -> dict[str, bytes]:
    """Contents of broken files by the name of their model."""
    return {
        "empty": b"",
        "text": b"<html>404 Not Found</html>\n",
        "zeros": bytes(4096),
        "first_byte": whole[:1],
        "half": whole[: len(whole) // 2],
        "last_byte_missing": whole[:-1],
        "overwritten": whole[:4] + b"\xff" * 16 + whole[20:],
        "unknown_operator": unary("NoSuchOperator").SerializeToString(),
    }


BROKEN = [*torn(b""), "weights_missing", "weights_short"]
CAUSES = {
    "empty": "No graph was found",
    "unknown_operator": "No Op registered for NoSuchOperator",
    "weights_missing": "External data path does not exist",
    "weights_short": "file_length: 100",
}


def write_upper(repository: Path) -> None:
    """A model that needs a library of operators, which lies beside its configuration."""
    library = library_of_operators()
    config = f'model_operations {{ op_library_filename: "operators.so" }}\n{instances(1)}'
    directory = write_model(repository, "upper", config)
    shutil.copyfile(library, directory / "operators.so")
    save(upper(), directory / "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`alone` is a file and nothing else, `upper` needs a library, `accelerated` cannot be; the others are `BROKEN`."""
    server = Server(tmp_path_factory.mktemp("onnx"), "", "--exit-on-error=false", "--strict-readiness=false")
    save(unary("Neg"), server.repository / "alone" / "1")
    for name, content in torn(weighted()).items():
        write_model(server.repository, name, instances(1))
        (server.repository / name / "1" / "model.onnx").write_bytes(content)
    for name, size in (("weights_missing", None), ("weights_short", 100)):
        external(write_model(server.repository, name, instances(1)) / "1", size)
    write_upper(server.repository)
    accelerator = 'cpu_execution_accelerator { name: "openvino" }'
    config = f"optimization {{ execution_accelerators {{ {accelerator} }} }}\n{instances(1)}"
    save(unary("Neg"), write_model(server.repository, "accelerated", config) / "1")
    with server.start(wait="live"):
        yield server


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(request.param, server) as connected:
        until(lambda: connected.raw.is_model_ready("alone"), SECONDS, "the whole model is served")
        yield connected


def test_a_file_alone_is_served_in_batches(client: Client) -> None:
    metadata = client.metadata("alone")
    assert [[int(dim) for dim in io["shape"]] for io in (*metadata["inputs"], *metadata["outputs"])] == [[-1, 2]] * 2
    found = client.raw.get_model_config("alone", **({} if client.protocol == "http" else {"as_json": True}))
    config = found.get("config", found)
    assert (config["max_batch_size"], config["dynamic_batching"]["preferred_batch_size"]) == (4, [4])
    assert [(io["name"], io["data_type"], [int(d) for d in io["dims"]]) for io in config["input"]] == [
        ("x", "TYPE_FP32", [2])
    ]
    sent = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(client.infer("alone", {"x": sent})["y"], -sent)
    with pytest.raises(InferenceServerException, match="batch-size must be <= 4"):
        client.infer("alone", {"x": np.zeros((5, 2), np.float32)})


def test_strings_and_an_operator_of_a_library(client: Client) -> None:
    until(lambda: client.raw.is_model_ready("upper"), SECONDS, "the library is loaded")
    sent = np.array([[b"abc"], ["zé".encode()], [b""]], dtype=np.object_)
    assert client.infer("upper", {"x": sent})["y"].tolist() == [[b"ABC"], ["Zé".encode()], [b""]]


def why(server: Server, name: str) -> str:
    """Why a model could not be loaded."""
    with Client("http", server) as client:

        def reason() -> str:
            found = {entry["name"]: entry for entry in client.raw.get_model_repository_index()}
            return str(found[name].get("reason", "")) if found[name].get("state") == "UNAVAILABLE" else ""

        said = until(reason, SECONDS, f"'{name}' has failed to load")
        until(lambda: client.raw.is_model_ready("alone"), SECONDS, "the whole model is served")
    return said


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_load_error_that_names_it(server: Server, name: str) -> None:
    said = why(server, name)
    assert str(server.repository / name / "1" / "model.onnx") in said
    assert CAUSES.get(name, "model.onnx is no ONNX model, or a part of one") in said


def test_an_accelerator_that_is_not_installed_is_a_load_error_that_says_what_to_install(server: Server) -> None:
    assert "pip install onnxruntime-openvino" in why(server, "accelerated")

"""Every method of tritonclient's gRPC clients, sync and asyncio, against the whole server."""

import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as memory

from tests.support.methods import Asyncio, Key, Sync, methods_server, region_of_numbers
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0
UNLOADED = ("UNAVAILABLE", "unloaded")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with methods_server(tmp_path_factory.mktemp("methods")) as server:
        yield server


@pytest.fixture
def region() -> Iterator[Any]:
    with region_of_numbers() as made:
        yield made


def given(count: int = 4) -> triton.InferInput:
    tensor = triton.InferInput("IN", [count], "FP32")
    tensor.set_data_from_numpy(np.arange(1, count + 1, dtype=np.float32))
    return tensor


def check_queries(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert not client.is_model_ready("other")
    assert {"classification", "system_shared_memory", "trace"} <= {*client.get_server_metadata().extensions}
    assert client.get_model_metadata("echo").platform == "identity"
    assert client.get_model_config("echo").config.output[0].label_filename == "labels.txt"
    assert client.get_inference_statistics("echo").model_stats[0].inference_count > 0


def check_repository(client: Any) -> None:
    def states() -> dict[str, tuple[str, str]]:
        return {model.name: (model.state, model.reason) for model in client.get_model_repository_index().models}

    assert states()["other"] in {("", ""), UNLOADED}
    client.load_model("other")
    assert client.is_model_ready("other")
    assert states()["other"] == ("READY", "")
    client.unload_model("other")
    assert not client.is_model_ready("other")
    until(lambda: states()["other"] == UNLOADED, SECONDS, "the model is unloaded")
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("nobody")
    assert caught.value.status() == "StatusCode.INTERNAL"
    assert caught.value.message().startswith("failed to load 'nobody', failed to poll from model repository")


def check_settings(client: Any) -> None:
    assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]
    changed = client.update_trace_settings("echo", {"trace_rate": "5"}).settings
    assert list(changed["trace_rate"].value) == ["5"]
    assert list(client.get_trace_settings("echo").settings["trace_rate"].value) == ["5"]
    client.update_trace_settings("echo", {"trace_rate": None})
    assert list(client.get_trace_settings("echo").settings["trace_rate"].value) == ["1000"]


def check_log_settings(client: Any) -> None:
    key = Key()
    client.register_plugin(key)
    assert client.plugin() is key
    before = client.get_log_settings().settings["log_verbose_level"].uint32_param
    assert client.update_log_settings({"log_verbose_level": 3}).settings["log_verbose_level"].uint32_param == 3
    client.update_log_settings({"log_verbose_level": before})
    client.unregister_plugin()
    with pytest.raises(InferenceServerException, match="restricted, expecting header 'triton-grpc-protocol-admin'"):
        client.get_log_settings()


def check_memory(client: Any, region: Any) -> None:
    handle, key = region
    client.register_system_shared_memory("mine", key, 64)
    assert client.get_system_shared_memory_status("mine").regions["mine"].byte_size == 64
    tensor, wanted = given(), triton.InferRequestedOutput("OUT")
    tensor.set_shared_memory("mine", 16)
    wanted.set_shared_memory("mine", 16, offset=32)
    client.infer("echo", [tensor], outputs=[wanted])
    assert memory.get_contents_as_numpy(handle, np.float32, [4], offset=32).tolist() == [1, 2, 3, 4]
    wanted.set_shared_memory("mine", 8)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("echo", [given()], outputs=[wanted])
    assert caught.value.status() == "StatusCode.INTERNAL"
    assert caught.value.message() == (
        "shared memory size specified with the request for output 'OUT' (8 bytes) should be at least 16 bytes to hold "
        "the results"
    )
    client.unregister_system_shared_memory("mine")
    assert not client.get_system_shared_memory_status().regions
    with pytest.raises(InferenceServerException):
        client.register_cuda_shared_memory("cuda", bytes(3), 0, 64)
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()


def check_inference(client: Any) -> None:
    result = client.infer("echo", [given()], outputs=[triton.InferRequestedOutput("OUT", class_count=2)])
    assert result.as_numpy("OUT").tolist() == [b"4.000000:3", b"3.000000:2"]
    result = client.infer("echo", [given(2)], outputs=[triton.InferRequestedOutput("OUT", class_count=2)])
    assert result.as_numpy("OUT").tolist() == [b"2.000000:1:dog", b"1.000000:0:cat"]


def check_all(client: Any, region: Any) -> None:
    check_inference(client)
    check_queries(client)
    check_repository(client)
    check_settings(client)
    check_log_settings(client)
    check_memory(client, region)


def test_the_client(server: Server, region: Any) -> None:
    client = Sync(triton.InferenceServerClient, server.address("grpc"))
    check_all(client, region)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.async_infer("echo", [given()], callback=lambda result, error: told.put((result, error)))
    client.start_stream(lambda result, error: told.put((result, error)))
    client.async_stream_infer("echo", [given()])
    for _ in range(2):
        result, error = told.get(timeout=SECONDS)
        assert error is None
        assert result.as_numpy("OUT").tolist() == [1, 2, 3, 4]
    client.stop_stream()
    client.end()
    assert not client.never_called()


def test_the_asyncio_client(server: Server, region: Any) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "echo", "inputs": [given()]}

    client = Asyncio(aio.InferenceServerClient, server.address("grpc"))
    check_all(client, region)
    ((result, error),) = client.stream_infer(requests())
    assert error is None
    assert result.as_numpy("OUT").tolist() == [1, 2, 3, 4]
    client.end()
    assert not client.never_called()

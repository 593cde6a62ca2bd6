"""Every method of tritonclient's HTTP clients, sync and asyncio, against the whole server."""

import http.client
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as memory

from tests.support.methods import Asyncio, Key, Sync, methods_server, region_of_numbers
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0


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


def check_inference(client: Any) -> None:
    result = client.infer("echo", [given()], request_id="mine")
    assert result.get_response()["id"] == "mine"
    assert result.as_numpy("OUT").tolist() == [1, 2, 3, 4]
    result = client.infer("echo", [given(2)], outputs=[triton.InferRequestedOutput("OUT", class_count=2)])
    assert result.as_numpy("OUT").tolist() == [b"2.000000:1:dog", b"1.000000:0:cat"]
    for compression in ("gzip", "deflate"):
        result = client.infer(
            "echo",
            [given()],
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        assert result.as_numpy("OUT").tolist() == [1, 2, 3, 4]


def check_bodies(client: Any, address: str) -> None:
    """Bodies that the client makes and reads, but somebody else sends."""
    body, json_size = client.generate_request_body([given()], request_id="mine")
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    connection.request("POST", "/v2/models/echo/infer", body, {"Inference-Header-Content-Length": str(json_size)})
    response = connection.getresponse()
    header_length = int(response.headers["Inference-Header-Content-Length"])
    result = client.parse_response_body(response.read(), header_length=header_length)
    connection.close()
    assert result.get_response()["id"] == "mine"
    assert result.as_numpy("OUT").tolist() == [1, 2, 3, 4]


def check_queries(client: Any) -> None:
    assert client.is_server_live() is True
    assert client.is_server_ready() is True
    assert client.is_model_ready("echo") is True
    assert client.is_model_ready("other") is False
    assert {"classification", "system_shared_memory", "trace"} <= {*client.get_server_metadata()["extensions"]}
    metadata = client.get_model_metadata("echo")
    assert (metadata["platform"], metadata["versions"]) == ("identity", ["1"])
    assert metadata["inputs"] == [{"name": "IN", "datatype": "FP32", "shape": [-1]}]
    assert client.get_model_config("echo")["output"][0]["label_filename"] == "labels.txt"
    (statistics,) = client.get_inference_statistics("echo")["model_stats"]
    assert statistics["inference_count"] > 0
    assert statistics["inference_stats"]["success"]["count"] == statistics["inference_count"]


def check_repository(client: Any) -> None:
    def states() -> dict[str, tuple[str, str]]:
        rows = client.get_model_repository_index()
        return {row["name"]: (row.get("state", ""), row.get("reason", "")) for row in rows}

    unloaded = ("UNAVAILABLE", "unloaded")
    assert states()["other"] in {("", ""), unloaded}
    client.load_model("other")
    assert client.is_model_ready("other")
    assert states() == {"echo": ("READY", ""), "other": ("READY", "")}
    client.unload_model("other")
    assert not client.is_model_ready("other")
    until(lambda: states()["other"] == unloaded, SECONDS, "the model is unloaded")
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("nobody")
    assert caught.value.status() == "500"
    assert caught.value.message().startswith("failed to load 'nobody', failed to poll from model repository")


def check_trace_settings(client: Any) -> None:
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.update_trace_settings("echo", {"trace_rate": "5"})["trace_rate"] == "5"
    assert client.get_trace_settings("echo")["trace_rate"] == "5"
    client.update_trace_settings("echo", {"trace_rate": None})
    assert client.get_trace_settings("echo")["trace_rate"] == "1000"


def check_log_settings(client: Any) -> None:
    key = Key()
    client.register_plugin(key)
    assert client.plugin() is key
    before = client.get_log_settings()["log_verbose_level"]
    assert client.update_log_settings({"log_verbose_level": 3})["log_verbose_level"] == 3
    assert client.get_log_settings()["log_verbose_level"] == 3
    client.update_log_settings({"log_verbose_level": before})
    client.unregister_plugin()
    with pytest.raises(InferenceServerException, match="This API is restricted, expecting header 'admin'"):
        client.get_log_settings()


def check_memory(client: Any, region: Any) -> None:
    handle, key = region
    client.register_system_shared_memory("mine", key, 64)
    expected = {"name": "mine", "key": key, "offset": 0, "byte_size": 64}
    assert client.get_system_shared_memory_status("mine") == [expected]
    tensor, wanted = given(), triton.InferRequestedOutput("OUT")
    tensor.set_shared_memory("mine", 16)
    wanted.set_shared_memory("mine", 16, offset=32)
    client.infer("echo", [tensor], outputs=[wanted])
    assert memory.get_contents_as_numpy(handle, np.float32, [4], offset=32).tolist() == [1, 2, 3, 4]
    client.unregister_system_shared_memory("mine")
    assert client.get_system_shared_memory_status() == []
    with pytest.raises(InferenceServerException) as caught:
        client.register_cuda_shared_memory("cuda", "AAAA", 0, 64)
    assert caught.value.status() == "400"
    assert caught.value.message() == "'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t"
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory()


def check_all(client: Any, address: str, region: Any) -> None:
    check_inference(client)
    check_bodies(client, address)
    check_queries(client)
    check_repository(client)
    check_trace_settings(client)
    check_log_settings(client)
    check_memory(client, region)


def test_the_client(server: Server, region: Any) -> None:
    address = server.address("http")
    client = Sync(triton.InferenceServerClient, address)
    check_all(client, address, region)
    result = client.async_infer("echo", [given()]).get_result(timeout=SECONDS)
    assert result.as_numpy("OUT").tolist() == [1, 2, 3, 4]
    client.end()
    assert not client.never_called()


def test_the_asyncio_client(server: Server, region: Any) -> None:
    address = server.address("http")
    client = Asyncio(aio.InferenceServerClient, address)
    check_all(client, address, region)
    client.end()
    assert not client.never_called()

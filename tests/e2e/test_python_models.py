"""What Python models may say of themselves, through the whole server."""

import threading
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, Client
from tests.support.server import Server
from tests.support.waiting import until

COMPLETE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_INT32", "dims": [1]})
        config.set_max_batch_size(8)
        config.set_dynamic_batching()
        return config

    def execute(self, requests):
        count = np.array([[len(requests)]], np.int32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", count)]) for _ in requests]
"""
STREAM = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_FP32", "dims": [1]})
        config.set_model_transaction_policy({"decoupled": True})
        return config

    async def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for number in range(3):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.float32([number]))]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
MOODY = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def is_ready(self):
        return not os.path.exists(os.path.join(pb_utils.get_model_dir(), "moody"))

    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""


def write(server: Server, name: str, source: str, config: str = "") -> Path:
    """A model of one file, and of a configuration if there is one."""
    directory = server.repository / name
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text(source)
    if config:
        (directory / "config.pbtxt").write_text(config)
    return directory


def test_a_lone_model_completes_its_configuration(tmp_path: Path) -> None:
    server = Server(tmp_path)
    write(server, "batches", COMPLETE)
    write(server, "stream", STREAM)
    with server:
        for protocol in PROTOCOLS:
            with Client(protocol, server) as client:
                assert client.infer("batches", {"IN": np.ones((2, 5), np.float32)})["OUT"] is not None
                with pytest.raises(InferenceServerException, match="batch-size must be <= 8 for 'batches'"):
                    client.infer("batches", {"IN": np.ones((9, 5), np.float32)})
                with pytest.raises(InferenceServerException, match="doesn't support models with decoupled"):
                    client.infer("stream", {"IN": np.ones(1, np.float32)})
        with Client("http", server) as client:
            config = client.raw.get_model_config("batches")
            assert config["max_batch_size"] == 8
            assert config["dynamic_batching"]["preferred_batch_size"] == [8]
            assert [tensor["name"] for tensor in config["input"]] == ["IN"]
            assert client.metadata("batches")["inputs"] == [{"name": "IN", "datatype": "FP32", "shape": [-1, -1]}]
        assert stream(server) == [0, 1, 2]


def stream(server: Server) -> list[float]:
    """The responses of the model `stream`."""
    values: list[float] = []
    done = threading.Event()

    def take(result: triton.InferResult | None, error: InferenceServerException | None) -> None:
        if error is not None or result.as_numpy("OUT") is None:
            done.set()
            return
        values.append(float(result.as_numpy("OUT")[0]))
        if result.get_response().parameters["triton_final_response"].bool_param or len(values) == 3:
            done.set()

    with triton.InferenceServerClient(server.address("grpc")) as client:
        client.start_stream(take)
        tensor = triton.InferInput("IN", [1], "FP32")
        tensor.set_data_from_numpy(np.ones(1, np.float32))
        client.async_stream_infer("stream", [tensor])
        assert done.wait(60)
    return values


def test_a_model_that_says_when_it_is_ready(tmp_path: Path) -> None:
    server = Server(tmp_path)
    directory = write(server, "moody", MOODY)
    with server, Client("http", server) as http, Client("grpc", server) as grpc:
        assert http.raw.is_model_ready("moody")
        assert grpc.raw.is_model_ready("moody")
        (directory / "1" / "moody").touch()
        until(lambda: not http.raw.is_model_ready("moody"), 30, "the model says no")
        (directory / "1" / "moody").unlink()
        until(lambda: http.raw.is_model_ready("moody"), 30, "the model says yes again")

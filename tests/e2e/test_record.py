"""Requests that a model has failed are recorded, and can be repeated without the server."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 20.0

SOURCE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        values = [request.inputs()[0].as_numpy() for request in requests]
        print(f"got {len(requests)}")
        pb_utils.Logger.log_info("working")
        for value in values:
            value[:] = value + 1  # what is recorded is what was sent
            if (value < 0).any():
                raise ValueError("negative")
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)]) for value in values]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("record")
    server = Server(directory, "", f"--record={directory / 'records'}")
    io = f"input {tensor('IN')}\noutput {tensor('OUT')}\n{instances(1)}\n"
    for name, more in (("plain", ""), ("decoupled", "model_transaction_policy { decoupled: true }")):
        model = write_model(server.repository, name, f'backend: "python"\n{io}{more}')
        (model / "1" / "model.py").write_text(SOURCE)
    with server:
        yield server


def records(server: Server, model: str) -> list[Path]:
    return sorted((server.directory / "records").glob(f"{model}-*.json"))


def replay(server: Server, model: str, record: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "broker", "run", str(server.repository / model), f"--replay={record}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_request_that_fails_is_recorded_and_fails_again(server: Server) -> None:
    sent = np.linspace(-5, 5, 1000, dtype=np.float32)
    value = httpclient.InferInput("IN", [1000], "FP32")
    with httpclient.InferenceServerClient(server.address("http")) as client:
        for array in (np.ones(1000, np.float32), sent):
            value.set_data_from_numpy(array)
            if array is sent:
                with pytest.raises(InferenceServerException, match="negative"):
                    client.infer("plain", [value], request_id="bad one")
            else:
                client.infer("plain", [value], request_id="good one")
    log = server.log()
    for line in ("[plain_0_0] [request id: good one] got 1", "[plain_0_0] [request id: bad one] got 1"):
        assert f"\n{line}\n" in log
    assert re.search(r"I.* \[plain_0_0\] \[request id: bad one\] model\.py:\d+\] working\n", log)
    assert "[plain_0_0] [request id: bad one] Failed to process the request(s) for model 'plain_0_0'" in log
    until(lambda: len(records(server, "plain")) == 1, SECONDS, "the failed request is recorded")
    (record,) = records(server, "plain")
    assert '"request_id":"bad one"' in record.read_text()
    with np.load(record.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(arrays["IN"], sent)
    again = replay(server, "plain", record)
    assert again.returncode == 1
    assert "ValueError: negative" in again.stderr


def test_a_stream_that_ends_with_an_error_is_recorded(server: Server) -> None:
    value = grpcclient.InferInput("IN", [1], "FP32")
    value.set_data_from_numpy(np.full(1, -9, np.float32))
    with grpcclient.InferenceServerClient(server.address("grpc")) as client:
        client.start_stream(lambda result, error: None)
        client.async_stream_infer("decoupled", [value])
        until(lambda: len(records(server, "decoupled")) == 1, SECONDS, "the failed request is recorded")
        client.stop_stream()
    assert "ValueError: negative" in replay(server, "decoupled", records(server, "decoupled")[0]).stderr

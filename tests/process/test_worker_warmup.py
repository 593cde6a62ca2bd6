"""Warm-up in a worker process: before Loaded, counted, discarded; what fails fails the load."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode, Loaded, LoadFailed, LoadProgress, Responded, WarmedUp
from tests.support.worker import FakeBroker, tensor, write_model

SOURCE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.executed = 0

    def execute(self, requests):
        self.executed += len(requests)
        return [answer(self, request) for request in requests]

def answer(self, request):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy() + self.executed)])
"""
REFUSES = 'return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"no {self.executed}"))'
RAISES = 'raise ValueError("boom")'
STREAM = """
import threading
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=stream, args=(request,)).start()

def stream(request):
    sender = request.get_response_sender()
    for _ in range(40):
        sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy())]))
    END
"""
FINAL = "sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)"


def config(*samples: tuple[str, int, int], **more: Any) -> dict[str, Any]:
    given = {"IN": {"data_type": "TYPE_FP32", "dims": [4], "zero_data": True}}
    return {
        "max_batch_size": 4,
        "input": [tensor("IN", "TYPE_FP32", 4)],
        "output": [tensor("OUT", "TYPE_FP32", 4)],
        "model_warmup": [
            {"name": name, "batch_size": batch, "inputs": given, "count": count} for name, batch, count in samples
        ],
        **more,
    }


def test_a_sequence_model_gets_the_control_inputs_that_its_sample_has(tmp_path: Path) -> None:
    control = {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}]}
    made = config(("w", 2, 1), sequence_batching={"control_input": [control], "state": []})
    made["model_warmup"][0]["inputs"]["START"] = {"data_type": "TYPE_INT32", "dims": [1], "zero_data": True}
    source = SOURCE.replace(
        "self.executed += len(requests)",
        "self.executed += sum(pb_utils.get_input_tensor_by_name(r, 'START').as_numpy().size for r in requests)",
    )
    with FakeBroker() as broker:
        broker.loaded("python", write_model(tmp_path, "m", source), made)
        assert broker.wait_for("WarmedUp").requests == 2


def test_samples_are_executed_before_the_instance_is_ready(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("python", write_model(tmp_path, "m", SOURCE), config(("a", 3, 2), ("skipped", 0, 1), ("b", 1, 0)))
        told = [message for message in broker.seen if isinstance(message, WarmedUp)]
        assert [message.requests for message in told] == [3, 3, 1]
        assert all(list(message.times) == sorted(message.times) for message in told)
        out = broker.arrays(broker.infer(broker.ref("IN", np.zeros((1, 4), np.float32))))
        assert out["OUT"][0, 0] == 8


@pytest.mark.parametrize(
    ("answer", "error"), [(REFUSES, "no 2; no 2; "), (RAISES, "ValueError: boom")], ids=["refuses", "raises"]
)
def test_an_error_fails_the_load(tmp_path: Path, answer: str, error: str) -> None:
    source = SOURCE.rpartition("\n    return")[0] + "\n    " + answer
    with FakeBroker() as broker:
        failed = broker.load("python", write_model(tmp_path, "m", source), config(("first", 2, 1), ("second", 1, 1)))
        assert isinstance(failed, LoadFailed)
        assert failed.code == ErrorCode.INVALID_ARG
        assert failed.error.startswith("failed to run warmup sample 'first': ")
        assert error in failed.error
        assert not any(isinstance(message, WarmedUp) for message in broker.seen)


def test_streams_of_responses_are_taken_to_their_end(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        model = write_model(tmp_path, "m", STREAM.replace("END", FINAL))
        answer = broker.load("python", model, config(("s", 2, 2), model_transaction_policy={"decoupled": True}))
        assert isinstance(answer, Loaded)
        assert [message.requests for message in broker.seen if isinstance(message, WarmedUp)] == [2, 2]
        assert not any(isinstance(message, Responded) for message in broker.seen)


def test_a_stream_that_its_model_drops_fails_the_load(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        model = write_model(tmp_path, "m", STREAM.replace("END", "pass"))
        failed = broker.load("python", model, config(("s", 1, 1), model_transaction_policy={"decoupled": True}))
        assert isinstance(failed, LoadFailed)
        assert "failed to run warmup sample 's': the model has dropped" in failed.error


def test_a_backend_of_arrays(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, config(("a", 4, 1)))
        assert [message.requests for message in broker.seen if isinstance(message, WarmedUp)] == [4]


def test_it_is_a_phase_of_the_load(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("python", write_model(tmp_path, "m", SOURCE), config(("a", 1, 1), ("b", 1, 1)))
        told = [message for message in broker.seen if isinstance(message, LoadProgress)]
        assert [message.phase for message in told] == ["load", "warm-up", "ready"]
        assert told[-1].byte_size > 0
    with FakeBroker() as broker:
        broker.loaded("identity", write_model(tmp_path, "i", SOURCE), config())
        told = [message for message in broker.seen if isinstance(message, LoadProgress)]
        assert [message.phase for message in told] == ["load", "ready"]

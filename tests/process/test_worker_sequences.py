"""Sequences in a real worker: requests that are executed once more, and rows that are nobody's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import NOBODY, STREAM_CREDIT, ErrorCode, Execute, Part, Result
from tests.process.test_worker_python import CONFIG, ONES, model
from tests.support.worker import FakeBroker, item, tensor

DECOUPLED = {"model_transaction_policy": {"decoupled": True}}
ITERATIVE = {**CONFIG, "sequence_batching": {"control_input": [], "state": [], "iterative_sequence": True}}
AGAIN = Result(ErrorCode.OK, "", (), {}, Part.AGAIN)
OPEN = Result(ErrorCode.OK, "", (), {}, Part.NONE)
HELPERS = """
AGAIN = pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
def response(self, value):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.full((1, 1), value, dtype=np.float32))])
"""


def execute(directory: Path, body: str, config: dict[str, Any]) -> tuple[Result, ...]:
    """What becomes of a batch of two requests."""
    with FakeBroker() as broker:
        broker.loaded("python", model(directory, HELPERS + body), config)
        return broker.execute(item(broker.ref("IN", ONES)), item(broker.ref("IN", ONES)))


def test_some_requests_of_a_batch_come_again(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    requests[0].set_release_flags(self.AGAIN)
    return [None, self.response(1)]
"""
    first, second = execute(tmp_path, body, ITERATIVE)
    assert first == AGAIN
    assert second.part == Part.CONTENT | Part.FINAL


def test_what_comes_again_is_not_answered(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    requests[0].set_release_flags(self.AGAIN)
    return [self.response(1), self.response(1)]
"""
    for result in execute(tmp_path, body, ITERATIVE):
        assert result.code == ErrorCode.INTERNAL
        assert "Expected a None object in the execute function return list for reschduled request" in result.error


def test_an_error_ends_what_was_to_come_again(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    requests[0].set_release_flags(self.AGAIN)
    raise ValueError("no")
"""
    assert [result.code for result in execute(tmp_path, body, ITERATIVE)] == [ErrorCode.INTERNAL] * 2


@pytest.mark.parametrize("config", [CONFIG, {**CONFIG, "sequence_batching": {}}], ids=["none", "not iterative"])
def test_only_iterative_sequences_come_again(tmp_path: Path, config: dict[str, Any]) -> None:
    body = "def execute(self, requests):\n    requests[0].set_release_flags(self.AGAIN)\n"
    for result in execute(tmp_path, body, config):
        assert "while the model is not configured to handle such a flag" in result.error


def test_a_decoupled_model_ends_one_and_takes_up_the_other_with_a_new_sender(tmp_path: Path) -> None:
    body = """
def initialize(self, args):
    self.rounds, self.senders = 0, []
def execute(self, requests):
    self.rounds += 1
    for index, request in enumerate(requests):
        sender = request.get_response_sender()
        if self.rounds == 2:
            try:
                self.senders[0].send(self.response(9))
            except pb_utils.TritonModelException:
                sender.send(self.response(7), flags=self.FINAL)
        else:
            sender.send(self.response(self.rounds), flags=self.FINAL if index else 0)
            request.set_release_flags(self.AGAIN)
        self.senders.append(sender)
"""
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, HELPERS + body), {**ITERATIVE, **DECOUPLED})
        request = item(broker.ref("IN", ONES))
        assert broker.execute(request, request) == (AGAIN, OPEN), "the second has had its last response"
        assert broker.execute(request) == (OPEN,)
        found = [broker.wait_for("Responded") for _ in range(3)]
        values = [float(broker.arrays(message.result)["OUT"].flat[0]) for message in found]
        assert sorted(values) == [1, 1, 7], "an old sender is closed"


def test_responses_for_nobody_go_nowhere_and_are_not_waited_for(tmp_path: Path) -> None:
    body = f"""
def execute(self, requests):
    for request in requests:
        sender = request.get_response_sender()
        if request.is_cancelled():
            for number in range({3 * STREAM_CREDIT}):
                sender.send(self.response(number))
        sender.send(self.response(-1), flags=self.FINAL)
"""
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, HELPERS + body), {**CONFIG, **DECOUPLED})
        rows = tuple(item(broker.ref("IN", ONES), reader=reader) for reader in (NOBODY, "reader"))
        attempt = next(broker.attempts)
        broker.send(Execute(attempt, rows))
        assert broker.wait_for("Executed").results == (OPEN, OPEN)
        contents = [m for m in broker.seen if type(m).__name__ == "Responded" and m.result.part & Part.CONTENT]
        assert [message.item for message in contents] == [1]


def test_outputs_for_nobody_take_no_memory(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.zeros((1, 5000), np.float32))]) for _ in requests]
"""
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, HELPERS + body), CONFIG)
        nobody, somebody = broker.execute(
            *[item(broker.ref("IN", ONES), reader=reader) for reader in (NOBODY, "reader")]
        )
        assert (nobody.outputs, len(somebody.outputs)) == ((), 1)


def test_the_identity_backend_leaves_controls_out(tmp_path: Path) -> None:
    control = {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}]}
    config = {**CONFIG, "sequence_batching": {"control_input": [control], "state": []}}
    (tmp_path / "m").mkdir()
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path / "m", config)
        result = broker.infer(broker.ref("IN", ONES), broker.ref("START", np.ones((1, 1), np.int32)))
        np.testing.assert_array_equal(broker.arrays(result)["OUT"], ONES)
        assert len(result.outputs) == 1


STATE = {"input_name": "BEFORE", "output_name": "AFTER", "data_type": "TYPE_FP32", "dims": [1], "initial_state": []}
WITH_STATE = {
    "max_batch_size": 8,
    "input": [tensor("IN", "TYPE_FP32", -1)],
    "output": [tensor("OUT", "TYPE_FP32", -1)],
    "sequence_batching": {"control_input": [], "state": [STATE]},
}
SUM = """
def sums(self, request):
    given, before = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("IN", "BEFORE"))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, given + before) for name in ("OUT", "AFTER")])
"""
RETURNED = (
    SUM
    + """
def execute(self, requests):
    return [self.sums(request) for request in requests]
"""
)
SENT = (
    SUM
    + """
def execute(self, requests):
    import threading
    for request in requests:
        sender = request.get_response_sender()
        threading.Thread(target=sender.send, args=(self.sums(request), self.FINAL)).start()
    return [None] * len(requests)
"""
)


@pytest.mark.parametrize("body", [RETURNED, SENT], ids=["returned", "sent"])
def test_a_state_stays_in_its_slot(tmp_path: Path, body: str) -> None:
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, HELPERS + body), WITH_STATE)

        def run(*slots: int, flags: int = 0) -> list[float]:
            one = broker.ref("IN", np.ones((1, 1), np.float32))
            broker.send(Execute(next(broker.attempts), tuple(item(one, flags=flags) for _ in slots), slots))
            results = list(broker.wait_for("Executed").results)
            for _ in range(results.count(OPEN)):
                sent = broker.wait_for("Responded")
                results[sent.item] = sent.result
            arrays = [broker.arrays(result) for result in results]
            assert {*arrays[0]} == {"OUT"}, "the state is not told"
            return [float(array["OUT"].flat[0]) for array in arrays]

        assert run(0, 1, flags=1) == [1, 1]
        assert run(1) == [2]
        assert run(1, 0) == [3, 2]
        assert run(1, flags=1) == [1]
        assert run(0, 1) == [3, 2]

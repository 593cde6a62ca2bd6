"""A worker process on the real fabric, driven by a fake broker: loading, executing, shared memory, stopping."""

import signal
from pathlib import Path

import numpy as np
import pytest

from broker.messages import ErrorCode, Execute, LoadFailed, PassOn, PeerGone, RegionClosed, RegionDropped
from shm.region import DIRECTORY
from tests.support.worker import READER, FakeBroker, item, tensor, write_model

FLOATS = {
    "max_batch_size": 8,
    "input": [tensor("INPUT0", "TYPE_FP32", -1)],
    "output": [tensor("OUTPUT0", "TYPE_FP32", -1)],
}
WITH_TEXT = {
    "input": [*FLOATS["input"], tensor("TEXT", "TYPE_STRING", -1)],
    "output": [*FLOATS["output"], tensor("TEXT_OUT", "TYPE_STRING", -1)],
}


def test_identity_small_and_large(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, WITH_TEXT)
        small = np.arange(16, dtype=np.float32).reshape(1, 16)
        text = np.array([[b"a", b"\0\xff"]], dtype=np.object_)
        out = broker.arrays(broker.infer(broker.ref("INPUT0", small), broker.ref("TEXT", text)))
        np.testing.assert_array_equal(out["OUTPUT0"], small)
        np.testing.assert_array_equal(out["TEXT_OUT"], text)
        large = np.random.default_rng(0).random((4, 1 << 20), dtype=np.float32)
        out = broker.arrays(broker.infer(broker.ref("INPUT0", large)))
        np.testing.assert_array_equal(out["OUTPUT0"], large)
        assert broker.stop() == 0


def test_batches_are_answered_in_order_and_the_status_page_names_the_last(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS)
        one = item(broker.ref("INPUT0", np.zeros((1, 1), dtype=np.float32)))
        broker.send(*[Execute(attempt, (one,)) for attempt in range(1, 31)])
        assert [broker.wait_for("Executed").attempt for _ in range(30)] == list(range(1, 31))
        assert broker.status[0] == 30


def test_the_status_page_names_the_batch_that_a_worker_died_of(tmp_path: Path) -> None:
    source = "import os\nclass TritonPythonModel:\n    def execute(self, requests):\n        os._exit(7)\n"
    with FakeBroker() as broker:
        broker.loaded("python", write_model(tmp_path, "m", source), FLOATS)
        one = item(broker.ref("INPUT0", np.zeros((1, 1), dtype=np.float32)))
        broker.send(Execute(5, (one,)), Execute(6, (one,)))
        assert broker.process.wait(30) == 7
        assert broker.status[0] == 5


def test_a_full_arena_refuses_only_the_request_that_needs_it(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS, arena=(1 << 16, 1 << 16, 1 << 17))
        small, half, large = [
            item(broker.ref("INPUT0", np.ones((1, n), dtype=np.float32))) for n in (16, 1 << 14, 1 << 20)
        ]
        results = broker.execute(small, large, half, half, half)
        assert [r.code for r in results] == [-1, ErrorCode.UNAVAILABLE, -1, -1, ErrorCode.UNAVAILABLE]
        assert "shm-max-byte-size" in results[1].error
        for result in (results[2], results[3]):
            broker.arrays(result)  # gives the blocks back
        assert broker.execute(half)[0].code == -1


def test_blocks_of_a_dead_reader_are_free_again(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS, arena=(1 << 16, 1 << 16, 1 << 16))
        whole = broker.ref("INPUT0", np.ones((1, 1 << 14), dtype=np.float32))
        assert broker.infer(whole).code == -1
        assert broker.infer(whole).code == ErrorCode.UNAVAILABLE
        broker.send(PeerGone("somebody else"))
        assert broker.infer(whole).code == ErrorCode.UNAVAILABLE
        broker.send(PeerGone(READER))
        assert broker.infer(whole).code == -1


def test_blocks_are_kept_for_the_broker_until_they_are_passed_on(tmp_path: Path) -> None:
    def is_full() -> bool:
        return broker.infer(whole).code == ErrorCode.UNAVAILABLE

    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS, arena=(1 << 16, 1 << 16, 1 << 16))
        whole = broker.ref("INPUT0", np.ones((1, 1 << 14), dtype=np.float32))
        for _ in range(2):
            (kept,) = broker.infer(whole, reader="").outputs
            place = (kept.region, kept.slot, kept.generation)
            broker.regions.mark_done(kept)
            broker.send(PassOn(*place[:2], kept.generation + 1, ""), PassOn("other", *place[1:], ""))
            assert is_full()
            broker.send(PassOn(*place, ""))
        kept_result = broker.infer(whole, reader="")
        (kept,) = kept_result.outputs
        broker.send(PassOn(kept.region, kept.slot, kept.generation, READER))
        assert is_full()
        broker.arrays(kept_result)
        (kept,) = broker.infer(whole, reader="").outputs
        broker.send(PeerGone("dead"), PassOn(kept.region, kept.slot, kept.generation, "dead"))
        assert not is_full()


def test_inputs_in_a_region_that_is_gone(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS)
        lost = broker.ref("INPUT0", np.ones((1, 1000), dtype=np.float32))
        assert broker.infer(lost).code == -1
        broker.send(RegionClosed(lost.region))
        assert broker.wait_for("RegionDropped") == RegionDropped(lost.region)
        kept = item(broker.ref("INPUT0", np.ones((1, 1), dtype=np.float32)))
        results = broker.execute(item(lost), kept)
        assert [r.code for r in results] == [ErrorCode.UNAVAILABLE, -1]
        assert results[0].error == "the shared memory of input 'INPUT0' is gone"
        assert lost.region not in Path(f"/proc/{broker.process.pid}/maps").read_text()


def test_a_worker_beats_and_leaves_no_region_without_a_name(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS)
        broker.infer(broker.ref("INPUT0", np.ones((1, 1 << 14), dtype=np.float32)))
        broker.seen.clear()
        beat = broker.wait_for("Beat")
        assert (beat.shm_used, beat.shm_mapped) == (1 << 16, 1 << 20)
        assert (DIRECTORY / f"tidepool-{broker.server}-w-0").exists()


def test_it_dies_with_the_broker_and_not_of_ctrl_c_or_sigterm(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS)
        for number in (signal.SIGINT, signal.SIGTERM):
            broker.process.send_signal(number)
        assert broker.infer(broker.ref("INPUT0", np.ones((1, 1), dtype=np.float32))).code == -1


@pytest.mark.parametrize(
    ("backend", "config", "message"),
    [
        ("nothing", FLOATS, "unable to find backend 'nothing' for model 'm', there are: "),
        ("identity", {"input": FLOATS["input"]}, "model configuration must have equal input/output pairs"),
        (
            "identity",
            {**FLOATS, "output": [tensor("OUTPUT0", "TYPE_STRING", 1)]},
            "expected input and output datatype to match, got TYPE_FP32 and TYPE_STRING",
        ),
        (
            "identity",
            {**FLOATS, "parameters": {"execute_delay_ms": {"string_value": "soon"}}},
            "failed to convert 'soon' to number (parameter 'execute_delay_ms')",
        ),
    ],
)
def test_what_cannot_be_loaded(tmp_path: Path, backend: str, config: dict[str, object], message: str) -> None:
    with FakeBroker() as broker:
        answer = broker.load(backend, tmp_path / "m", config)
        assert isinstance(answer, LoadFailed)
        assert answer.code == ErrorCode.INVALID_ARG
        assert answer.error.startswith(message)
        assert broker.stop() == 0


def test_an_arena_that_cannot_be_made(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        (DIRECTORY / f"tidepool-{broker.server}-w-0").write_bytes(b"")
        answer = broker.load("identity", tmp_path, FLOATS)
        assert isinstance(answer, LoadFailed)
        assert answer.code == ErrorCode.UNAVAILABLE
        assert "shm-default-byte-size" in answer.error


def test_the_delay_of_identity(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        parameters = {
            "execute_delay_ms": {"string_value": "20"},
            "instance_wise_delay_multiplier": {"string_value": "2"},
        }
        broker.loaded("identity", tmp_path, {**FLOATS, "parameters": parameters}, instance="m_0_2")
        broker.send(Execute(1, (item(broker.ref("INPUT0", np.ones((1, 1), dtype=np.float32))),)))
        began, _, computed, _ = broker.wait_for("Executed").times
        assert computed - began >= 80_000_000

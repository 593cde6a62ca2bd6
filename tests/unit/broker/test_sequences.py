"""The sequence batcher's rules, one by one: Triton's, and what becomes of sequences whose worker dies."""

import struct
from typing import Any

import pytest

from broker.messages import NOBODY, ErrorCode
from broker.schedulers import SequenceScheduler, make
from broker.validation import Rejected
from configs.sequences import Control
from shm.ref import TensorRef
from tests.unit.broker.describe import description
from tests.unit.broker.sequences import CONTROLS, END, START, Round, settings


def test_a_configuration_chooses_it() -> None:
    assert type(make(description(sequence_batching=settings()))) is SequenceScheduler


# ------------------------------------------------------------------------------------------- admission


NO_ID = "must specify a non-zero or non-empty correlation ID"
NO_START = "must specify the START flag on the first request of the sequence"


@pytest.mark.parametrize(
    ("identity", "flags", "batch", "text"),
    [
        (0, START, 1, f"inference request to model 'm' {NO_ID}"),
        ("", START, 1, f"inference request to model 'm' {NO_ID}"),
        (5, 0, 1, f"inference request for sequence 5 to model 'm' {NO_START}"),
        ("a", END, 1, f"inference request for sequence a to model 'm' {NO_START}"),
        (
            5,
            START,
            2,
            "inference request to model 'm' must specify batch-size 1 due to requirements of sequence batcher",
        ),
    ],
)
def test_what_is_no_request_of_a_sequence_is_refused_in_tritons_words(
    identity: int | str, flags: int, batch: int, text: str
) -> None:
    world = Round(settings())
    with pytest.raises(Rejected) as error:
        world.ask(identity, flags, batch=batch)
    assert str(error.value) == text
    assert error.value.code == ErrorCode.INVALID_ARG
    assert len(world.scheduler) == 0
    assert world.scheduler.live() == []


def test_a_string_is_refused_where_the_model_takes_numbers() -> None:
    world = Round(settings(controls=CONTROLS))
    with pytest.raises(Rejected, match="control 'ID' data-type is 'BYTES', but model 'm' expects 'UINT64'"):
        world.ask("five", START)
    assert world.scheduler.live() == []


def test_numbers_and_strings_are_different_ids() -> None:
    world = Round(settings())
    world.ask(5, START)
    with pytest.raises(Rejected):
        world.ask("5")


def test_an_id_is_free_once_its_end_is_accepted() -> None:
    world = Round(settings(slots=1))
    world.ask(5, START)
    world.ask(5, END)
    world.ask(5, START | END)
    with pytest.raises(Rejected):
        world.ask(5)
    world.finish()
    world.finish()
    world.finish()
    assert [world.rows(n) for n in range(3)] == [[5], [5], [5]]


def test_a_start_in_a_sequence_begins_it_anew_in_its_slot() -> None:
    world = Round(settings(slots=2, controls=CONTROLS), workers=2)
    world.ask(5, START)
    world.finish()
    world.ask(5, START)
    assert [peer for peer, _ in world.sent] == ["w0", "w0"]
    assert world.scheduler.warnings == [
        "sequence 5 for model 'm' has a conflict. The previous sequence did not end before this sequence start. "
        "Previous sequence will be terminated early."
    ]


# ------------------------------------------------------------------------------------------- slots


def test_sequences_fill_the_first_slots_of_all_workers_first() -> None:
    world = Round(settings(slots=2), workers=2)
    for identity in (1, 2, 3, 4):
        world.ask(identity, START)
    assert [(peer, world.rows(n)) for n, (peer, _) in enumerate(world.sent)] == [("w0", [1]), ("w1", [2])]
    world.finish(0)
    world.finish(1)
    assert [(peer, world.rows(n + 2)) for n, (peer, _) in enumerate(world.sent[2:])] == [("w0", [0, 3]), ("w1", [0, 4])]


def test_a_sequence_stays_at_its_worker() -> None:
    world = Round(settings(slots=1), workers=2)
    world.ask(1, START)
    world.ask(1)
    assert len(world.sent) == 1, "one after the other, though another worker is idle"
    world.finish(0)
    assert [peer for peer, _ in world.sent] == ["w0", "w0"]


def test_the_backlog_is_served_in_order_with_all_that_has_been_queued() -> None:
    world = Round(settings(slots=1))
    world.ask(1, START)
    waiting = [world.ask(2, START), world.ask(2, END), world.ask(3, START | END)]
    world.finish()
    assert len(world.scheduler) == 3, "the slot is taken until the sequence ends"
    world.ask(1, END)
    for _ in range(4):
        world.finish()
    assert [batch for _, batch in world.sent[2:]] == [[request] for request in waiting]


def test_a_draining_worker_keeps_its_sequences_and_gets_no_others() -> None:
    world = Round(settings(slots=2), workers=1)
    world.ask(1, START)
    world.workers[0].is_ready = False
    world.finish()
    world.ask(2, START)
    world.ask(1, END)
    assert world.rows() == [1]
    assert world.scheduler.holds(world.workers[0])
    world.finish()
    assert not world.scheduler.holds(world.workers[0])
    assert len(world.scheduler) == 1


# ------------------------------------------------------------------------------------------- direct


def test_rows_are_slots_and_those_without_a_request_are_nobodys() -> None:
    world = Round(settings(slots=4, controls=CONTROLS))
    for identity in (1, 2, 3):
        world.ask(identity, START)
    world.finish()
    assert world.rows() == [0, 2, 3]
    world.finish()
    first = world.ask(3)
    (nobody, _, _) = world.sent[-1][1]
    assert world.rows() == [0, 0, 3]
    assert (nobody.peer, nobody.is_done, nobody.message.request_id) == (NOBODY, True, "")
    assert values(nobody.inputs[1:]) == {"START": 0, "END": 0.0, "READY": False, "ID": 0}
    assert nobody.inputs[0] == first.message.inputs[0]


def test_a_slot_of_another_shape_waits_for_the_next_batch() -> None:
    world = Round(settings(slots=3))
    world.ask(9, START)
    world.ask(1, START, size=4)
    world.ask(2, START, size=7)
    world.finish()
    assert world.rows() == [0, 1]
    world.finish()
    assert world.rows() == [0, 0, 2]


def test_a_batch_waits_for_the_wanted_part_of_the_slots() -> None:
    world = Round(settings(slots=4, max_queue_delay=5.0, minimum_slot_utilization=0.5, idle=100.0))
    world.ask(1, START)
    assert world.sent == []
    assert world.scheduler.next_expiry() == 5.0
    world.ask(2, START)
    assert world.rows() == [1, 2]
    world.finish()
    world.ask(1)
    assert len(world.sent) == 1
    world.wait(5.0)
    assert world.rows() == [1]


# ------------------------------------------------------------------------------------------- oldest


def test_requests_of_different_sequences_run_together() -> None:
    world = Round(settings(slots=8, is_direct=False, preferred_batch_size=(4,)), max_batch_size=4)
    world.ask(1, START)
    for identity in (2, 3, 4, 5, 6):
        world.ask(identity, START)
    world.ask(2)
    world.finish()
    assert world.rows() == [2, 3, 4, 5]
    world.finish()
    assert world.rows() == [6, 2], "in the order in which the sequences offer them"


def test_a_batch_waits_for_company_for_its_delay() -> None:
    world = Round(settings(slots=4, is_direct=False, preferred_batch_size=(2,), max_queue_delay=3.0, idle=100.0))
    world.ask(1, START)
    assert world.sent == []
    world.wait(3.0)
    assert world.rows() == [1]
    world.finish()
    world.ask(2, START)
    world.ask(3, START)
    assert world.rows() == [2, 3]


# ------------------------------------------------------------------------------------------- time


def test_a_sequence_that_is_idle_for_too_long_ends() -> None:
    world = Round(settings(slots=1, idle=10.0))
    world.ask(1, START)
    world.finish()
    world.ask(2, START)
    world.wait(9.0)
    assert len(world.sent) == 1
    world.wait(1.0)
    assert world.rows() == [2]
    with pytest.raises(Rejected, match="must specify the START flag"):
        world.ask(1)


def test_what_is_queued_when_a_sequence_ends_is_executed() -> None:
    world = Round(settings(slots=1, idle=10.0))
    world.ask(1, START)
    queued = world.ask(1)
    world.wait(10.0)
    world.finish()
    assert world.finish() == [queued]
    assert not world.scheduler.holds(world.workers[0])


def test_waiting_for_a_slot_is_not_idleness() -> None:
    world = Round(settings(slots=1, idle=10.0))
    world.ask(1, START)
    waiting = world.ask(2, START)
    world.wait(9.0)
    world.ask(1, END)
    world.wait(9.0)
    world.finish()
    world.finish()
    assert world.finish() == [waiting]
    world.ask(2)
    assert world.rows() == [2]


def test_a_timeout_counts_in_the_backlog_for_all_requests_of_the_sequence() -> None:
    world = Round(settings(slots=1, idle=100.0))
    world.ask(1, START)
    waiting = [world.ask(2, START), world.ask(2, timeout_us=300_000), world.ask(2)]
    other = world.ask(3, START | END)
    world.wait(0.2)
    assert world.refused == []
    world.wait(0.1)
    assert [refusal.request for refusal in world.refused] == waiting
    assert {refusal[1:] for refusal in world.refused} == {
        (ErrorCode.UNAVAILABLE, "timeout of the corresponding sequence has been expired", "REJECTED")
    }
    world.ask(1, END)
    world.finish()
    world.finish()
    assert world.finish() == [other]


def test_a_timeout_does_not_count_with_a_slot() -> None:
    world = Round(settings(slots=1, idle=100.0))
    world.ask(1, START, timeout_us=1)
    world.ask(1, timeout_us=1)
    world.wait(50.0)
    assert world.refused == []


def test_each_request_puts_the_idle_time_off_for_its_own_sequence() -> None:
    world = Round(settings(slots=2, idle=10.0))
    world.ask(1, START)
    world.finish()
    world.ask(2, START)
    world.finish()
    world.wait(6.0)
    world.ask(1)
    world.finish()
    world.wait(5.0)
    assert world.scheduler.live() == [1]
    world.wait(5.0)
    assert world.scheduler.live() == []


def test_a_timeout_does_not_count_for_a_sequence_that_had_a_slot() -> None:
    world = Round(settings(slots=2, idle=100.0))
    world.ask(1, START)
    saved = world.ask(2, START, timeout_us=1_000_000)
    world.workers[0].is_ready = False
    world.die()
    world.wait(5.0)
    assert world.refused == []
    world.workers[0].is_ready = True
    world.dispatch()
    assert world.finish() == [saved]


def test_timeouts_of_sequences_that_wait_no_more_are_forgotten() -> None:
    world = Round(settings(slots=1, idle=100.0))
    for identity in range(1, 1000):
        world.ask(identity, START, timeout_us=10**12)
        world.ask(identity, END)
        while world.workers[0].attempts:
            world.finish()
        world.ask(1000, START | END)
        request = world.ask(2000, START | END, timeout_us=10**12)
        assert world.scheduler.remove(request)
        world.finish()
    assert len(world.scheduler._timeouts) < 200


# ------------------------------------------------------------------------------------------- cancellation


def test_a_cancelled_request_takes_those_behind_it_and_the_slot_along() -> None:
    world = Round(settings(slots=1))
    world.ask(1, START)
    before, gone, after = world.ask(1), world.ask(1), world.ask(1, END)
    other = world.ask(2, START)
    assert world.scheduler.remove(gone)
    assert not world.scheduler.remove(gone)
    world.dispatch()
    assert [refusal[:2] for refusal in world.refused] == [(after, ErrorCode.CANCELLED)]
    world.finish()
    assert world.finish() == [before]
    assert world.finish() == [other]


def test_a_cancelled_sequence_leaves_the_backlog() -> None:
    world = Round(settings(slots=1))
    world.ask(1, START)
    gone = world.ask(2, START)
    assert world.scheduler.remove(gone)
    assert len(world.scheduler) == 0
    with pytest.raises(Rejected):
        world.ask(2)


def test_what_is_executed_cannot_be_removed() -> None:
    world = Round(settings())
    assert not world.scheduler.remove(world.ask(1, START))


# ------------------------------------------------------------------------------------------- deaths and ends


@pytest.mark.parametrize("is_direct", [True, False])
def test_the_next_request_of_a_lost_sequence_is_told_why_once(is_direct: bool) -> None:
    world = Round(settings(is_direct=is_direct))
    world.ask(1, START)
    world.finish()
    world.die()
    with pytest.raises(Rejected) as error:
        world.ask(1)
    assert str(error.value) == (
        "inference request for sequence 1 to model 'm' must specify the START flag on the first request of the "
        "sequence: the worker of instance 'm_0', which had its state, died"
    )
    with pytest.raises(Rejected) as error:
        world.ask(1)
    assert str(error.value).endswith("first request of the sequence")
    world.ask(1, START)
    assert world.rows() == [1]


@pytest.mark.parametrize("is_direct", [True, False])
def test_what_was_queued_at_a_dead_worker_is_refused_and_what_had_not_begun_runs_elsewhere(is_direct: bool) -> None:
    world = Round(settings(slots=2, is_direct=is_direct))
    world.ask(1, START)
    lost = world.ask(1)
    fresh = [world.ask(2, START), world.ask(2, END)]
    world.ask(3, START)
    world.die()
    assert [(refusal.request, refusal.code, refusal.text) for refusal in world.refused] == [
        (lost, ErrorCode.UNAVAILABLE, "sequence 1 of model 'm' is lost: the worker of instance 'm_0' died")
    ]
    assert world.rows() == [2, 3], "the sequences that had not begun come before the backlog"
    world.finish()
    assert fresh[1] in world.sent[-1][1]


def test_a_first_request_that_was_not_begun_runs_elsewhere() -> None:
    world = Round(settings(slots=1))
    first = world.ask(1, START)
    world.die(began=False)
    assert world.finish() == [first]
    second = world.ask(1)
    assert world.sent[-1][1] == [second]


def test_a_later_request_that_was_not_begun_is_refused() -> None:
    world = Round(settings(slots=1))
    world.ask(1, START)
    world.finish()
    second = world.ask(1, END)
    world.die(began=False)
    assert [refusal.request for refusal in world.refused] == [second]
    assert world.refused[0].text == "sequence 1 of model 'm' is lost: the worker of instance 'm_0' died"
    assert len(world.scheduler) == 0


def test_a_request_of_another_scheduler_is_refused() -> None:
    world = Round(settings())
    world.ask(1, START)
    queued = world.ask(1)
    world.scheduler.drain()
    world.scheduler = SequenceScheduler(settings(), 8)
    world.scheduler.requeue(queued)
    world.dispatch()
    assert [(r.request, r.text) for r in world.refused] == [
        (queued, "sequence 1 of model 'm' is lost: the model's configuration has changed")
    ]


def test_a_closed_scheduler_executes_what_is_queued_and_lets_all_sequences_go() -> None:
    world = Round(settings(slots=1, idle=1000.0))
    world.ask(1, START)
    world.finish()
    waiting = world.ask(2, START)
    successor = SequenceScheduler(settings(), 8)
    successor.mourn(world.scheduler)
    world.scheduler.close()
    world.dispatch()
    assert world.finish() == [waiting]
    assert not world.scheduler.holds(world.workers[0])
    world.scheduler = successor
    with pytest.raises(Rejected, match="the model was loaded anew, and its sequences have ended"):
        world.ask(1)


def test_draining_gives_up_everything() -> None:
    world = Round(settings(slots=1))
    world.ask(1, START)
    queued = [world.ask(1), world.ask(2, START)]
    assert world.scheduler.drain() == queued
    assert len(world.scheduler) == 0
    world.finish()
    assert not world.scheduler.holds(world.workers[0])


# ------------------------------------------------------------------------------------------- iterative


def test_an_iterative_request_gets_an_id_and_runs_until_its_model_is_done() -> None:
    world = Round(settings(slots=2, is_iterative=True, controls=CONTROLS))
    request = world.ask(0)
    assert (request.message.correlation_id, request.message.flags) == (1, START)
    assert values(request.inputs[1:]) == {"START": 1, "END": 0.0, "READY": True, "ID": 1}
    other = world.ask(0)
    world.finish(again=(request,))
    assert world.sent[-1][1] == [request, other]
    assert values(request.inputs[1:])["START"] == 0
    assert request.message.flags == 0
    world.finish()
    assert len(world.scheduler) == 0
    assert not world.scheduler.holds(world.workers[0])


# ------------------------------------------------------------------------------------------- controls


def values(refs: tuple[TensorRef, ...]) -> dict[str, Any]:
    """What control inputs say."""
    formats = {"INT32": "<i", "FP32": "<f", "BOOL": "<?", "UINT64": "<Q", "INT64": "<q", "UINT32": "<I"}
    return {ref.name: struct.unpack(formats[ref.datatype], ref.data or b"")[0] for ref in refs}


@pytest.mark.parametrize(
    ("datatype", "identity", "expected"),
    [
        ("UINT64", 2**64 - 1, b"\xff" * 8),
        ("INT64", 2**64 - 1, b"\xff" * 8),
        ("UINT32", 2**33 + 6, b"\x06\x00\x00\x00"),
        ("INT32", 2**33 + 6, b"\x06\x00\x00\x00"),
        ("BYTES", "añb", b"\x04\x00\x00\x00a\xc3\xb1b"),
        ("BYTES", 12, b"\x02\x00\x00\x0012"),
    ],
)
def test_ids_reach_the_model_in_its_datatype(datatype: str, identity: int | str, expected: bytes) -> None:
    world = Round(settings(controls=(Control("CORRID", "ID", datatype),)))
    ref = world.ask(identity, START).inputs[-1]
    assert (ref.name, ref.datatype, ref.shape, ref.byte_size, ref.data) == (
        "ID",
        datatype,
        (1, 1),
        len(expected),
        expected,
    )


def test_controls_of_a_model_without_batches_have_no_batch_dimension() -> None:
    world = Round(settings(slots=1, controls=CONTROLS), max_batch_size=0)
    refs = world.ask(7, START | END).inputs[1:]
    assert {ref.shape for ref in refs} == {(1,)}
    assert values(refs) == {"START": 1, "END": 1.0, "READY": True, "ID": 7}

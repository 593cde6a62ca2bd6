"""Models that come, change, fail and go."""

from typing import Any

import pytest

from broker.messages import ErrorCode, Loaded, WarmedUp
from broker.models import InstanceState
from tests.unit.broker.describe import batching, description, infer, instances
from tests.unit.broker.world import World


def test_a_model_that_never_loaded_is_forgotten_when_it_is_removed() -> None:
    world = World()
    world.start(description("a"), rejected="b")
    assert not world.core.is_ready
    world.remove("b")
    assert list(world.core.models) == ["a"]
    assert world.core.is_ready


def test_a_model_that_is_half_written_when_it_is_found_is_not_held_against_the_server() -> None:
    world = World()
    world.start(description("a"))
    world.reject("b", "config.pbtxt:1:1: nonsense")
    assert world.core.is_ready
    world.describe(description("b"))
    assert not world.core.is_ready, "it loads"
    world.settle()
    assert world.core.is_ready
    world.bury(world.workers_of("b")[0])
    assert not world.core.is_ready, "it counts from then on"


def test_a_rejected_edit_does_not_keep_a_model_that_is_removed() -> None:
    world = World()
    world.start(description("a"))
    world.reject("a", "config.pbtxt:1:1: nonsense")
    assert world.core.is_ready
    world.remove("a")
    world.settle()
    assert not world.core.models


def test_a_version_goes_when_the_last_request_in_its_queue_is_cancelled() -> None:
    world = World()
    world.start(description("a", batching=batching(delay=100.0)))
    record = world.ask(world.frontends[0], infer(0, "a", (1, 4)))
    world.describe(description("a", batching=batching(delay=100.0), fingerprint="b"))
    world.boot(world.workers[-1])
    assert world.core.models["a"].retiring, "it has a request that waits for company"
    world.cancel(record)
    world.settle()
    world.check_settled()
    assert len(world.workers) == 1


def test_a_version_that_is_unloaded_and_cannot_start_again_refuses_what_waits_for_it() -> None:
    world = World()
    world.start(description("a", config={"broken": False}))
    worker = world.workers[0]
    record = world.ask(world.frontends[0], infer(0, "a"))
    world.begin(worker)
    world.remove("a")
    world.bury(worker)  # the request is to be retried
    (again,) = world.workers
    world.greet(again)
    world.hear(again)
    world.load(again, error="out of memory")
    world.settle()
    assert record.responses[-1].code == ErrorCode.UNAVAILABLE
    world.check_settled()
    assert not world.workers


def test_instances_that_are_replaced_serve_until_the_new_ones_are_ready() -> None:
    world = World()
    world.start(description("a", instances=instances("a", 2, "gpu 0")))
    old = list(world.workers)
    world.describe(description("a", instances=instances("a", 2, "gpu 1")))
    first, second = [worker for worker in world.workers if worker not in old]
    world.boot(first)
    record = world.ask(world.frontends[0], infer(0, "a"))
    other = world.ask(world.frontends[0], infer(0, "a"))
    third = world.ask(world.frontends[0], infer(0, "a"))
    assert {record.worker, other.worker, third.worker} == {*(worker.token for worker in old), first.token}
    world.boot(second)
    world.settle()
    world.check_settled()
    assert set(world.workers) == {first, second}


def test_instances_that_are_to_be_replaced_stay_when_the_new_ones_fail() -> None:
    world = World()
    world.start(description("a"))
    (old,) = world.workers
    world.describe(description("a", instances=instances("a", 1, "gpu 1")))
    new = world.workers[-1]
    world.greet(new)
    world.hear(new)
    world.load(new, error="out of memory")
    world.settle()
    assert world.workers == [old]
    assert world.core.is_ready
    world.describe(description("a"))
    world.settle()
    world.check_settled()
    assert world.workers == [old]


def test_an_edit_while_instances_are_replaced_does_not_take_the_old_ones_away() -> None:
    world = World()
    world.start(description("a"))
    (old,) = world.workers
    world.describe(description("a", instances=instances("a", 1, "gpu 1")))
    world.describe(description("a", instances=instances("a", 1, "gpu 1"), batching=batching(), max_batch_size=0))
    world.hear(old)
    assert not old.is_told_to_stop
    world.settle()
    world.check_settled()
    assert old not in world.workers


def test_a_draining_worker_that_fails_to_load_leaves_nothing_behind() -> None:
    world = World()
    world.start(description("a"))
    world.describe(description("a", count=2))
    surplus = world.workers[-1]
    world.greet(surplus)
    world.hear(surplus)
    world.describe(description("a"))
    world.load(surplus, error="out of memory")
    world.settle()
    world.check_settled()


def test_warm_up_counts_in_the_statistics() -> None:
    world = World()
    world.start(description("a"))
    (worker,) = world.workers
    now = int(world.now * 1e9)
    world.say(worker, WarmedUp(3, (now - 100, now - 80, now - 30, now - 10)))
    world.deliver(worker)
    found = world.core.models["a"].versions[1].statistics.to_json("a", 1)
    assert (found["inference_count"], found["execution_count"]) == (3, 1)
    assert found["inference_stats"]["success"] == {"count": 3, "ns": 270}
    assert found["inference_stats"]["compute_infer"] == {"count": 3, "ns": 150}
    assert found["batch_stats"][0]["batch_size"] == 3


@pytest.mark.parametrize("message", [WarmedUp(0, (1, 2, 3, 4)), WarmedUp(1, (4, 3, 2, 1))])
def test_a_warm_up_that_cannot_be_is_the_end_of_its_worker(message: WarmedUp) -> None:
    world = World()
    world.start(description("a"))
    (worker,) = world.workers
    world.say(worker, message)
    world.deliver(worker)
    assert worker.is_doomed


@pytest.mark.parametrize("completed", [{}, {"max_batch_size": -1}])
def test_a_worker_that_has_loaded_when_it_is_not_wanted_any_more_changes_nothing(completed: dict[str, Any]) -> None:
    world = World()
    world.start(description("a"))
    world.describe(description("a", count=2))
    (fresh,) = [worker for worker in world.workers if not worker.is_loaded]
    world.greet(fresh)
    world.describe(description("a", count=1))
    assert fresh.is_doomed
    world.say(fresh, Loaded((), (), completed, True))
    world.deliver(fresh)
    (version,) = world.core.models["a"].versions.values()
    assert version.completed == {}
    assert not version.is_asked
    world.bury(fresh)
    assert [instance.state for instance in version.instances] == [InstanceState.READY]


def test_a_worker_is_called_after_its_model_whatever_its_group_is_called() -> None:
    world = World()
    world.start(description("a", instances=instances("fast", 1)), description("b", instances=instances("b", 1)))
    assert sorted(worker.name for worker in world.workers) == ["a/fast_0_0", "b_0_0"]

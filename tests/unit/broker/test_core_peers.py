"""Processes as the core sees them: greetings, silence, stops, nonsense, restarts, the end."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import FRONTEND_SILENCE_SECONDS, SILENCE_SECONDS, START_SECONDS
from broker.effects import Emit, Kill, Start
from broker.fleet import UNLOAD_SECONDS
from broker.messages import PROTOCOL, Beat, Cancel, Executed, Hello, Infer, Message, Result
from tests.unit.broker.describe import description, infer
from tests.unit.broker.wire import CLASSES, MESSAGES
from tests.unit.broker.world import World


def kills(effects: list[Any]) -> list[str]:
    return [effect.peer for effect in effects if isinstance(effect, Kill)]


@pytest.mark.parametrize("hello", [Hello(PROTOCOL + 1, "http", 1), Hello(PROTOCOL, "worker", 1)])
def test_a_stranger_is_killed(hello: Hello) -> None:
    world = World()
    (frontend,) = world.of("http")
    assert kills(world.core.handle(frontend.token, hello, world.now)) == [frontend.token]
    assert world.core.handle(frontend.token, Beat(0, 0), world.now) == [], "it is not listened to any more"


def test_nobody_knows_a_token_that_was_never_given() -> None:
    world = World()
    assert world.core.handle("h99", Hello(PROTOCOL, "http", 1), world.now) == []
    assert world.core.malformed("h99", "nonsense", world.now) == []
    assert world.core.unreachable("h99", world.now) == []


def test_a_process_that_never_says_hello_is_killed() -> None:
    world = World()
    world.advance(START_SECONDS)
    assert not any(process.is_doomed for process in world.processes.values())
    world.advance(2.0)
    assert all(process.is_doomed for process in world.processes.values())


def test_silence_is_death() -> None:
    world = World()
    world.start(description("a"))
    (worker,), (frontend,) = world.workers, world.frontends
    world.advance(SILENCE_SECONDS - 1, silent=[worker, frontend])
    assert not worker.is_doomed
    world.advance(3, silent=[worker, frontend])
    assert worker.is_doomed
    assert not frontend.is_doomed
    world.advance(FRONTEND_SILENCE_SECONDS, silent=[frontend])
    assert frontend.is_doomed


def test_a_busy_worker_may_be_silent() -> None:
    world = World()
    world.start(description("a"))
    (worker,) = world.workers
    world.ask(world.frontends[0], infer(0, "a"))
    world.begin(worker)
    world.advance(10 * SILENCE_SECONDS, silent=[worker])
    assert not worker.is_doomed


def test_a_worker_may_be_silent_while_it_finalizes() -> None:
    world = World()
    world.start(description("a"))
    (worker,) = world.workers
    world.remove("a")
    world.hear(worker)
    assert worker.is_told_to_stop
    world.advance(UNLOAD_SECONDS - 1, silent=[worker])
    assert not worker.is_doomed
    world.advance(2, silent=[worker])
    assert worker.is_doomed, "but not for ever"


def test_nobody_is_blamed_for_the_time_that_the_broker_itself_was_stopped() -> None:
    world = World()
    world.start(description("a"))
    world.now += 1000.0
    assert kills(world.core.tick(world.now)) == []
    world.advance(5.0)
    assert not any(process.is_doomed for process in world.processes.values())


def test_a_stopped_process_is_killed_unless_it_is_resumed_soon() -> None:
    world = World()
    world.start(description("a"))
    (worker,) = world.workers
    assert kills(world.core.observe([worker.token], 10.0)) == []
    assert kills(world.core.observe([], 11.0)) == []
    assert kills(world.core.observe([worker.token], 12.0)) == []
    assert kills(world.core.observe([worker.token], 13.0)) == [worker.token]
    assert kills(world.core.observe([worker.token], 14.0)) == [], "once is enough"


def test_a_frontend_that_dies_again_and_again_is_started_ever_later() -> None:
    world = World()
    starts = []
    for _ in range(6):
        (frontend,) = world.of("http")
        began = world.now
        world.bury(frontend)
        while not world.of("http"):
            world.advance(0.25)
        starts.append(world.now - began)
    assert starts[0] < 0.5
    assert starts == sorted(starts)
    assert starts[-1] > 3


def test_a_frontend_that_served_is_started_at_once_when_something_outside_kills_it() -> None:
    world = World()
    world.start()
    for _ in range(10):
        (frontend,) = world.frontends
        world.bury(frontend, is_outside=True)
        world.advance(0.0)
        world.boot(world.of("http")[0])


def test_a_worker_in_a_crash_loop_does_not_stop_the_broker() -> None:
    world = World()
    world.start(description("a"))
    for _ in range(1200):
        world.bury(world.workers[0])
        while not world.workers:
            world.advance(5.0)
        world.boot(world.workers[0])


def test_a_request_number_is_used_once_at_a_time() -> None:
    world = World()
    world.start(description("a"))
    (frontend,) = world.frontends
    request = infer(5, "a", received=world.now)
    assert kills(world.core.handle(frontend.token, request, world.now)) == []
    assert kills(world.core.handle(frontend.token, request, world.now)) == [frontend.token]


@pytest.mark.parametrize("received", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_request_does_not_come_from_another_time(received: float) -> None:
    world = World()
    world.start(description("a"))
    (frontend,) = world.frontends
    assert kills(world.core.handle(frontend.token, infer(5, "a", received=received), world.now)) == [frontend.token]


def test_a_worker_does_not_come_from_another_time() -> None:
    for times in ((4, 3, 2, 1), (1, 2, 3, 2**64 - 1), (-4, -3, -2, -1)):
        world = World()
        world.start(description("a"))
        world.ask(world.frontends[0], infer(0, "a"))
        (worker,) = world.workers
        execute = world.begin(worker)
        message = Executed(execute.attempt, (Result(-1, "", (), {}),), times)
        assert worker.token in kills(world.core.handle(worker.token, message, world.now))


def test_what_does_not_concern_anybody_is_ignored() -> None:
    world = World()
    world.start(description("a"))
    (frontend,), (worker,) = world.frontends, world.workers
    assert world.core.handle(frontend.token, Cancel(99), world.now) == []
    assert world.core.handle(worker.token, Executed(99, (), (0, 0, 0, 0)), world.now) == []


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.data()), max_size=4), st.integers(0, 3), st.booleans())
def test_no_message_stops_the_broker(
    chosen: list[tuple[type[Any], st.DataObject]], index: int, is_under_way: bool
) -> None:
    world = World({"http": 1, "metrics": 1})
    world.start(description("a"))
    if is_under_way:
        world.ask(world.frontends[0], infer(0, "a"))
    peer = list(world.core.peers)[index]
    for cls, data in chosen:
        message: Message = data.draw(MESSAGES[cls])
        if isinstance(message, Infer):
            message = message._replace(model="a")
        for effect in world.core.handle(peer, message, world.now):
            assert not isinstance(effect, Start) or effect.role == "worker"
            if isinstance(effect, Emit):
                assert effect.level in {"I", "W", "E", "V"}
    world.core.tick(world.now + 1)


def test_the_server_is_started_when_its_frontends_take_requests() -> None:
    world = World(frontends={"http": 1, "grpc": 1})
    (http,), (grpc,) = world.of("http"), world.of("grpc")
    world.scanned()
    world.greet(http)
    assert not world.core.is_started
    world.greet(grpc)
    assert world.core.is_started
    assert world.core.is_ready

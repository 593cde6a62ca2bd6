"""Processes as the core sees them: greetings, silence, stops, nonsense, restarts, the end."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import FRONTEND_SILENCE_SECONDS, SILENCE_SECONDS, START_SECONDS
from broker.effects import Emit, Kill, Send, Start
from broker.fleet import UNLOAD_SECONDS
from broker.messages import PROTOCOL, Beat, Cancel, Execute, Executed, Hello, Message, Result
from broker.roles import SENT
from configs.description import Environment, ModelDescription, TensorSpec
from tests.unit.broker.describe import batching, description, infer, tensor
from tests.unit.broker.wire import CLASSES, MESSAGES
from tests.unit.broker.world import World


def kills(effects: list[Any]) -> list[str]:
    return [effect.peer for effect in effects if isinstance(effect, Kill)]


@pytest.mark.parametrize("hello", [Hello(PROTOCOL + 1, "http", 1), Hello(PROTOCOL, "worker", 1)])
def test_a_stranger_is_killed(hello: Hello) -> None:
    world = World()
    (frontend,) = world.of("http")
    assert kills(world.core.handle(frontend.token, [hello], world.now)) == [frontend.token]
    assert world.core.handle(frontend.token, [Beat(0, 0)], world.now) == [], "it is not listened to any more"


def a_message(kind: type[Any]) -> Any:
    """One of this kind that can be told from others by nothing but its kind."""
    return kind(*[None] * len(kind.__annotations__))


@pytest.mark.parametrize("role", sorted({*SENT} - {"sagemaker", "vertex_ai"}))
def test_who_sends_what_is_not_its_to_send_is_killed(role: str) -> None:
    for kind in set(CLASSES) - SENT[role]:
        world = World({"http": 1, "grpc": 1, "metrics": 1}, cache_config=("redis,host=h",))
        world.start(description("a"))
        process = world.of(role)[0]
        effects = world.core.handle(process.token, [a_message(kind)], world.now)
        assert kills(effects) == [process.token], kind
        (line,) = [effect.text for effect in effects if isinstance(effect, Emit)]
        assert f"{process.name} (pid " in line
        assert f"has broken the protocol: {kind.__name__} is not for a process of the role {role}" in line


def test_whatever_can_be_handled_is_somebodys_to_send() -> None:
    core = World().core
    handled = {*core._handlers_by_message(), *core._questions_by_message()}
    assert set().union(*SENT.values()) == handled


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not Hello])
def test_nobody_is_listened_to_before_its_hello(kind: type[Any]) -> None:
    world = World()
    (frontend,) = world.of("http")
    effects = world.core.handle(frontend.token, [a_message(kind)], world.now)
    assert kills(effects) == [frontend.token]
    assert f"{kind.__name__} before its Hello" in str(effects)


def test_a_hello_is_said_once() -> None:
    world = World()
    world.start(description("a"))
    (worker,) = world.workers
    assert kills(world.core.handle(worker.token, [Hello(PROTOCOL, "worker", 1)], world.now)) == [worker.token]


def test_nobody_knows_a_token_that_was_never_given() -> None:
    world = World()
    assert world.core.handle("h99", [Hello(PROTOCOL, "http", 1)], world.now) == []
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
    for deaths in (0, 100, 1100, 10**9):
        next(iter(world.core.fleet.workers.values())).quick_deaths = deaths
        world.bury(world.workers[0])
        while not world.workers:
            world.advance(5.0)
        world.boot(world.workers[0])


def test_a_request_number_is_used_once_at_a_time() -> None:
    world = World()
    world.start(description("a"))
    (frontend,) = world.frontends
    request = infer(5, "a", received=world.now)
    assert kills(world.core.handle(frontend.token, [request], world.now)) == []
    assert kills(world.core.handle(frontend.token, [request], world.now)) == [frontend.token]


@pytest.mark.parametrize("received", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_request_does_not_come_from_another_time(received: float) -> None:
    world = World()
    world.start(description("a"))
    (frontend,) = world.frontends
    assert kills(world.core.handle(frontend.token, [infer(5, "a", received=received)], world.now)) == [frontend.token]


def test_a_worker_does_not_come_from_another_time() -> None:
    for times in ((4, 3, 2, 1), (1, 2, 3, 2**64 - 1), (-4, -3, -2, -1)):
        world = World()
        world.start(description("a"))
        world.ask(world.frontends[0], infer(0, "a"))
        (worker,) = world.workers
        execute = world.begin(worker)
        message = Executed(execute.attempt, (Result(-1, "", (), {}),), times)
        assert worker.token in kills(world.core.handle(worker.token, [message], world.now))


def test_what_does_not_concern_anybody_is_ignored() -> None:
    world = World()
    world.start(description("a"))
    (frontend,), (worker,) = world.frontends, world.workers
    assert world.core.handle(frontend.token, [Cancel(99)], world.now) == []
    assert world.core.handle(worker.token, [Executed(99, (), (0, 0, 0, 0))], world.now) == []


VARIANTS = (
    description("a"),
    description("a", inputs=(), outputs=()),
    description("a", inputs=(TensorSpec("", "", None),), outputs=()),
    description("a", max_batch_size=8, inputs=(TensorSpec("", "BYTES", (1,)),)),
    description("a", batching=batching(2, delay=0.1, ordered=True), inputs=(TensorSpec("", "", (-1, 2), (2, -1)),)),
    description("a", decoupled=True, outputs=(TensorSpec("", "INT8", (-1, 2), (2, -1)),)),
    description("a", max_batch_size=2, outputs=(TensorSpec("", "INT8", (-1, 2), (2, -1)),)),
)
"""Models that check little, each in another way."""


@settings(max_examples=40)
@given(
    st.sampled_from(VARIANTS),
    st.lists(st.data(), max_size=4),
    st.integers(0, 3),
    st.booleans(),
)
def test_no_message_stops_the_broker(
    model: ModelDescription, chosen: list[st.DataObject], index: int, is_under_way: bool
) -> None:
    world = World({"http": 1, "metrics": 1})
    world.start(model)
    if is_under_way:
        world.core.handle(world.frontends[0].token, [infer(99, "a", received=world.now)], world.now)
    peer = list(world.core.peers)[index]
    kinds = [kind for kind in CLASSES if kind in SENT[world.core.peers[peer].role]]
    for data in chosen:
        message: Message = data.draw(MESSAGES[data.draw(st.sampled_from(kinds))])
        for effect in world.core.handle(peer, [message], world.now):
            assert not isinstance(effect, Start) or effect.role == "worker"
            if isinstance(effect, Emit):
                assert effect.level in {"I", "W", "E", "V"}
    world.core.tick(world.now + 1)


@settings(max_examples=40)
@given(st.sampled_from(VARIANTS), st.data())
def test_no_request_and_no_result_stops_the_broker(model: ModelDescription, data: st.DataObject) -> None:
    world = World()
    world.start(model)
    (frontend,), (worker,) = world.frontends, world.workers
    names = st.sampled_from(["", "IN", "OUT"])
    shapes = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**63 - 1]), max_size=4).map(tuple)
    datatypes = st.sampled_from(["", "INT8", "BYTES", "FP64", "fp64"])
    sizes = st.integers(0, 24) | st.integers(0, 2**63)
    tensors = st.builds(tensor, names, datatypes, shapes, sizes)
    for number in range(1, 4):
        inputs = tuple(data.draw(st.lists(tensors, max_size=2)))
        outputs = tuple(data.draw(st.lists(names, max_size=2)))
        is_raw = data.draw(st.booleans()) and len(inputs) == 1
        version = data.draw(st.sampled_from([-1, 0, 1, 2]))
        changes = {"version": version, "is_raw": is_raw, "outputs": outputs, "received": world.now}
        request = infer(number, "a", inputs=inputs, **changes)
        for effect in world.core.handle(frontend.token, [request], world.now):
            if isinstance(effect, Send) and isinstance(effect.message, Execute):
                results = [
                    Result(
                        data.draw(st.integers(-2, 9)),
                        "",
                        tuple(data.draw(st.lists(tensors, max_size=2))),
                        {},
                        data.draw(st.integers(0, 4)),
                    )
                    for _ in effect.message.items
                ]
                answer = Executed(effect.message.attempt, tuple(results), (1, 2, 3, 4))
                world.core.handle(worker.token, [answer], world.now)
    world.core.tick(world.now + 1)


def test_a_worker_may_take_its_time_to_build_its_environment() -> None:
    world = World()
    world.start()
    world.describe(description("plain"))
    world.describe(description("slow", environment=Environment("packages", "/models/slow/requirements.txt", "1")))
    (plain,), (slow,) = world.workers_of("plain"), world.workers_of("slow")
    world.advance(10 * START_SECONDS)
    assert plain.is_doomed
    assert not slow.is_doomed

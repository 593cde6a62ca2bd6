"""Ready or not, why, and when the server ends."""

from typing import Any

from broker.messages import Answer, ErrorCode, GetServerReady
from tests.unit.broker.describe import description, infer
from tests.unit.broker.world import World


def health(world: World) -> Any:
    frontend = world.frontends[0]
    world.apply(world.core.handle(frontend.token, [GetServerReady(7, True)], world.now))
    answer = frontend.inbox.pop()
    assert isinstance(answer, Answer)
    return answer.content


def test_everything_is_well() -> None:
    world = World()
    world.start(description("b"), description("a", count=2))
    found = health(world)
    assert (found["live"], found["ready"], "reason" in found) == (True, True, False)
    assert [model["name"] for model in found["models"]] == ["a", "b"]
    (version,) = found["models"][0]["versions"]
    assert (version["version"], version["state"], version["ready"]) == ("1", "READY", True)
    assert [(each["name"], each["state"], each["device"]) for each in version["instances"]] == [
        ("a_0_0", "ready", "cpu"),
        ("a_0_1", "ready", "cpu"),
    ]
    assert all("reason" not in each for each in version["instances"])


def test_an_instance_that_died_says_of_what_and_its_model_is_ready_as_long_as_another_lives() -> None:
    world = World()
    world.start(description("a", count=2))
    one, two = world.workers
    world.bury(one)
    found = health(world)
    assert found["ready"]
    (dead,) = [each for each in found["models"][0]["versions"][0]["instances"] if each["state"] != "ready"]
    assert dead["state"] == "starting"
    again = world.workers[-1]
    world.bury(again)
    world.bury(two)
    found = health(world)
    assert not found["ready"]
    assert not found["models"][0]["ready"]
    waiting = [each for each in found["models"][0]["versions"][0]["instances"] if each["state"] == "waiting"]
    assert [each["reason"] for each in waiting] == ["killed by signal 9 (SIGKILL)"]


def test_what_loads_beside_and_what_failed_to_is_told_and_takes_nothing_from_what_serves() -> None:
    world = World()
    world.start(description("a"))
    world.describe(description("a", fingerprint="b"))
    found = health(world)
    assert found["ready"]
    assert [version["state"] for version in found["models"][0]["versions"]] == ["READY", "LOADING"]
    worker = world.workers[-1]
    world.greet(worker)
    world.hear(worker)
    world.load(worker, error="syntax error")
    world.settle()
    found = health(world)
    assert found["ready"]
    assert found["models"][0]["reason"] == "version 1 failed to load: Internal: syntax error"


def test_a_model_that_cannot_be_served_says_why() -> None:
    world = World()
    world.start(rejected="a")
    found = health(world)
    assert not found["ready"]
    assert found["models"] == [{"name": "a", "ready": False, "reason": "config.pbtxt:1:1: nonsense", "versions": []}]


def test_without_strictness_a_server_is_ready_whatever_its_models_do() -> None:
    world = World(strict_readiness=False)
    world.start(rejected="a")
    found = health(world)
    assert found["ready"]
    assert not found["models"][0]["ready"]


def test_a_server_that_loads_says_so() -> None:
    world = World()
    for process in list(world.processes.values()):
        world.boot(process)
    assert (health(world)["ready"], health(world)["reason"]) == (False, "loading")


def test_a_server_serves_until_the_delay_is_over_and_says_that_it_is_not_ready() -> None:
    world = World()
    world.start(description("a"))
    world.apply(world.core.drain("received SIGTERM", world.now, delay=5.0))
    found = health(world)
    assert (found["live"], found["ready"], found["reason"]) == (True, False, "draining")
    world.apply(world.core.drain("received SIGTERM", world.now, delay=5.0))
    world.advance(4.9)
    record = world.ask(world.frontends[0], infer(0, "a"))
    world.advance(0.2)
    late = world.ask(world.frontends[0], infer(1, "a"))
    world.settle()
    assert record.responses[-1].code == ErrorCode.OK
    assert late.responses[-1].code == ErrorCode.UNAVAILABLE
    assert world.exit_status == 0


def test_a_delay_is_cut_short_by_a_signal_that_does_not_wait() -> None:
    world = World()
    world.start(description("a"))
    world.apply(world.core.drain("received SIGTERM", world.now, delay=1000.0))
    world.apply(world.core.drain("received SIGINT", world.now))
    world.settle()
    assert world.exit_status == 0


def test_a_server_that_still_loads_ends_without_a_delay() -> None:
    world = World()
    for process in list(world.processes.values()):
        world.boot(process)
    world.apply(world.core.drain("received SIGTERM", world.now, delay=1000.0))
    world.settle()
    assert world.exit_status == 0

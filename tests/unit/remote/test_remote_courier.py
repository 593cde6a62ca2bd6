"""The repository process with remote repositories: what it tells the broker as models arrive, change and fail."""

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.messages import DescribeModel, Log, Message, ModelConsidered, WatchRepository
from broker.remote import courier as couriers
from broker.remote.courier import Courier
from broker.remote.events import Arrived, Fetched
from broker.watcher import STILL_LOOKS, Watcher
from configs.remote import models_directory, parse
from configs.server import ServerConfig
from tests.support.remote_source import FakeSource
from tests.unit.broker.test_watcher import CONFIG, description, ensemble, short

SECONDS = 30.0
REMOTE = parse("s3://b/m")


class World:
    """A watcher with its courier, whose events are handled one by one."""

    def __init__(self, directory: Path, mode: str, source: FakeSource, **settings: Any) -> None:
        self.mirror = models_directory(directory / "cache", REMOTE)
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.local = directory / "local"
        self.local.mkdir(exist_ok=True)
        config = ServerConfig(
            model_repository=(self.mirror, self.local),
            remotes={self.mirror: REMOTE},
            repository_cache=str(directory / "cache"),
            model_control_mode=mode,
            repository_poll_secs=0.05,  # type: ignore[arg-type]  # seconds in whole only where people write them
            **settings,
        )
        self.is_under_way = True
        self.courier = Courier(config, self.inbox, self.out, lambda _: source)
        self.watcher = Watcher(config, (), directory)
        self.watcher.take_over(WatchRepository(True, (), ()))

    def begin(self) -> list[Message]:
        """What is told before anything has come."""
        self.courier.begin(self.watcher.at_start)
        return self.watcher.scan(is_first=True)

    def step(self) -> list[Message]:
        """The next thing that the courier has done, and what comes of it when files have been still."""
        event = self.inbox.get(timeout=SECONDS)
        if isinstance(event, Fetched):
            return self.watcher.consider(event.wanted, event.error)
        return [*self._heed(event), *[message for _ in range(STILL_LOOKS + 2) for message in self.watcher.look()]]

    def _heed(self, event: object) -> list[Message]:
        assert isinstance(event, Arrived)
        self.is_under_way = event.failures is None
        return self.watcher.arrived(event)

    def complete(self) -> list[Message]:
        """Everything that is told until the start is over."""
        told: list[Message] = []
        while not self.watcher.is_complete:
            told += self.step()
        return told

    def log(self) -> str:
        lines = []
        while not self.out.empty():
            lines.append(self.out.get().text)
        return "\n".join(lines)


@pytest.fixture
def source() -> Iterator[FakeSource]:
    found = FakeSource({f"{name}/{path}": text.encode() for name in "ab" for path, text in FILES.items()})
    yield found
    found.is_over = True


FILES = {"config.pbtxt": CONFIG, "1/weights": "0123456789"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(couriers, "LONGEST_PAUSE_SECONDS", 0.01)


def test_local_models_do_not_wait_for_remote_ones(tmp_path: Path, source: FakeSource) -> None:
    (tmp_path / "local/mine/1").mkdir(parents=True)
    (tmp_path / "local/mine/config.pbtxt").write_text(CONFIG)
    world = World(tmp_path, "none", source)
    assert ("described", "mine") in short(world.begin())
    assert not world.watcher.is_complete
    assert {("described", "a"), ("described", "b")} <= {*short(world.complete())}


def test_a_repository_that_cannot_be_read_keeps_the_start_from_being_over(tmp_path: Path, source: FakeSource) -> None:
    source.down = "Forbidden"
    world = World(tmp_path, "none", source)
    assert short(world.begin()) == [("listed", "")]
    with pytest.raises(queue.Empty):
        world.inbox.get(timeout=0.1)
    assert world.log() == "s3://b/m: Forbidden; the server is not ready until it can be read", "it is said once"
    source.down = ""
    assert ("described", "a") in short(world.complete())


def test_a_model_that_cannot_be_had_at_the_start_is_rejected_and_comes_later(
    tmp_path: Path, source: FakeSource
) -> None:
    source.cut = {"b/1/weights": 0}
    source.files["b/1/weights"] += b"b"
    world = World(tmp_path, "none", source)
    world.begin()
    told = world.complete()
    assert ("described", "a") in short(told)
    assert ("rejected", "b") in short(told)
    source.cut = {}
    source.files["a/config.pbtxt"] = b""
    while ("described", "b") not in short(told):
        told = world.step()
    while world.is_under_way:
        world.step()
    assert (world.mirror / "a/config.pbtxt").read_text() == CONFIG, "mode none: others stay as they were"


def test_an_update_that_cannot_be_had_leaves_the_old_one(tmp_path: Path, source: FakeSource) -> None:
    world = World(tmp_path, "poll", source)
    world.begin()
    world.complete()
    source.cut = {"a/1/weights": 0}
    source.files["a/1/weights"] = b"9876543210"
    told = world.step()
    assert short(told) == [("rejected", "a")]
    del source.cut["a/1/weights"]
    while ("described", "a") not in short(told):
        told = world.step()


def test_a_restart_serves_the_older_state_of_a_model_whose_update_cannot_be_had(
    tmp_path: Path, source: FakeSource
) -> None:
    first = World(tmp_path, "explicit", source, load_model=("*",))
    first.begin()
    first.complete()
    source.cut = {"a/1/weights": 0}
    source.files["a/1/weights"] = b"9876543210"
    world = World(tmp_path, "explicit", source, load_model=("*",))
    world.begin()
    told = world.complete()
    assert ("described", "a") in short(told)
    assert ("rejected", "a") not in short(told)
    assert any(isinstance(m, Log) and "an older state of it is served" in m.text for m in told)


def test_a_restart_without_the_repository_serves_what_is_here(tmp_path: Path, source: FakeSource) -> None:
    first = World(tmp_path, "explicit", source, load_model=("a",))
    first.begin()
    first.complete()
    source.down = "no route"
    world = World(tmp_path, "explicit", source, load_model=("a",))
    world.begin()
    assert ("described", "a") in short(world.complete())
    assert "no route; serving what was there at" in world.log()
    world.courier.takes(DescribeModel("a", "", {}))
    assert short(world.step())[-1] == ("considered", "a")
    world.courier.takes(DescribeModel("b", "", {}))
    assert world.step()[-1] == ModelConsidered("b", "s3://b/m: no route")


def test_clients_load_what_they_want_with_what_it_is_made_of(tmp_path: Path, source: FakeSource) -> None:
    source.files["whole/config.pbtxt"] = ensemble("b").encode()
    source.files["whole/1/"] = b""
    world = World(tmp_path, "explicit", source)
    world.begin()
    assert short(world.complete()) == [("listed", "a b whole")]
    assert source.reads == []
    assert world.courier.takes(DescribeModel("whole", "", {}))
    told: list[Message] = []
    while not any(isinstance(message, ModelConsidered) for message in told):
        told += world.step()
    assert ("considered", "whole") in short(told)
    assert {("described", "b"), ("described", "whole")} <= {*short(told)}
    assert {path for path, _, _ in source.reads} == {"whole/config.pbtxt", "b/config.pbtxt", "b/1/weights"}


def test_an_edit_in_the_repository_is_told_in_mode_poll(tmp_path: Path, source: FakeSource) -> None:
    world = World(tmp_path, "poll", source)
    world.begin()
    world.complete()
    source.files["a/config.pbtxt"] = f"{CONFIG}max_batch_size: 3".encode()
    del source.files["b/config.pbtxt"], source.files["b/1/weights"]
    told: list[Message] = []
    while len(told) < 3:
        told += world.step()
    assert {("described", "a"), ("removed", "b")} <= {*short(told)}
    assert description(told)["max_batch_size"] == 3


def test_what_a_request_brings_itself_is_not_fetched(tmp_path: Path, source: FakeSource) -> None:
    world = World(tmp_path, "explicit", source)
    assert not world.courier.takes(DescribeModel("a", "{}", {"1/model.py": b""}))
    assert not Courier(ServerConfig(), world.inbox, world.out).takes(DescribeModel("a", "", {}))

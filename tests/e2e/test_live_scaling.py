"""`count` and entries edited in the running server, under load: exactly the difference starts or drains."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import Client
from tests.support.load import Load, echo
from tests.support.repository import write_echo, write_identity
from tests.support.server import Server, log_lines
from tests.support.waiting import until

CONCURRENCY = 32
FOLLOWS_SECONDS = 3.0
"""How soon the process list follows an edit."""
READY = "tidepool_instance_ready"


def entry(count: int) -> str:
    """A server.pbtxt that gives `scaled` so many instances."""
    return f'model_config_list: [ {{ config: {{ name: "scaled" instance_group: [ {{ count: {count} }} ] }} }} ]\n'


@pytest.mark.parametrize("where", ["server.pbtxt", "config.pbtxt"])
def test_scaling_fails_no_request_and_touches_no_other_instance(new_server: Callable[..., Server], where: str) -> None:
    _scale_under_load(new_server, where, seconds=6)


@pytest.mark.large
def test_scaling_for_a_minute(new_server: Callable[..., Server]) -> None:
    _scale_under_load(new_server, "server.pbtxt", seconds=60)


def _scale_under_load(new_server: Callable[..., Server], where: str, seconds: float) -> None:
    server = new_server(entry(1) if where == "server.pbtxt" else "")
    scaled = write_identity(server.repository, "scaled")
    write_echo(server.repository, "other")
    edited = server.config if where == "server.pbtxt" else scaled / "config.pbtxt"
    protocols = ("http", "http", "grpc", "http")
    asks = [(protocols[n % 4], echo("other" if n % 8 == 7 else "scaled")) for n in range(CONCURRENCY)]
    with server:
        others = _workers_of(server, "other")
        with Load(server, asks) as load:
            began = time.monotonic()
            count, before = 1, _workers_of(server, "scaled")
            for number, wanted in enumerate((4, 2, 1), start=1):
                until(lambda: load.outcomes, 30, "requests are answered")
                server.edit(f"count: {count}", f"count: {wanted}", edited)
                edited_at = time.monotonic()
                until(lambda: len(server.pids()) == wanted + 1, FOLLOWS_SECONDS, f"{wanted} instances")  # noqa: B023
                print(f"{count} -> {wanted} instances after {time.monotonic() - edited_at:.1f} s")
                until(lambda: server.metric(READY, model="scaled") == wanted, 30, "all are loaded")  # noqa: B023
                now = set(server.pids()) - others
                assert now >= before if wanted > count else now < before
                assert others < set(server.pids())
                count, before = wanted, now
                _pass_time(load, began + seconds * number / 3)
        outcomes = load.outcomes
        print(f"{len(outcomes)} requests, {len(load.failures)} failed")
        assert not load.failures
        assert {o.protocol for o in outcomes} == {"http", "grpc"}
        assert max(o.ended - o.began for o in outcomes) < 10
        with Client("http", server) as client:
            answered = [client.statistics(name)["inference_count"] for name in ("scaled", "other")]
        assert sum(answered) == len(outcomes)


def _pass_time(load: Load, moment: float) -> None:
    """Let the load run until then, or until something has failed."""
    until(lambda: time.monotonic() >= moment or load.failures, 120, "time passes")


def _workers_of(server: Server, model: str) -> set[int]:
    """The processes of a model at the start, from the table of instances."""
    rows = re.findall(rf"^\| {model} +\| \d+ +\| \S+ +\| (\d+) ", server.log(1_000_000), re.M)
    assert rows
    return {int(pid) for pid in rows}


def test_an_added_entry_is_loaded_and_a_removed_one_unloaded(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--model-control-mode=none")
    write_identity(server.repository, "first")
    with server:
        before = server.pids()
        write_echo(server.repository, "second")
        server.config.write_text('model_config_list: [ { config: { name: "second" } } ]\n')
        with Client("grpc", server) as client:
            until(lambda: client.raw.is_model_ready("second"), 30, "the added model is ready")
            assert client.infer("second", {"IN": np.ones(3, np.float32)})["OUT"] is not None
            (added,) = set(server.pids()) - set(before)
            assert server.pids() == [*before, added]


def test_a_second_instance_group_starts_beside_the_first(new_server: Callable[..., Server]) -> None:
    server = new_server()
    model = write_identity(server.repository, "grouped")
    with server:
        before = set(server.pids())
        group = "{ count: 1 kind: KIND_CPU }"
        server.edit(group, f"{group}, {{ count: 2 kind: KIND_CPU }}", model / "config.pbtxt")
        until(lambda: len(server.pids()) == 3, 30, "three instances")
        assert before < set(server.pids())


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "unclosed": (lambda text: text.rstrip().removesuffix("]"), "expected"),
    "negative count": (lambda text: text.replace("count: 1", "count: -3"), "count -3"),
    "unknown field": (lambda text: text.replace("count", "cuont"), "did you mean 'count'"),
}


@pytest.mark.parametrize("where", ["server.pbtxt", "config.pbtxt"])
def test_a_broken_edit_is_reported_and_changes_nothing(new_server: Callable[..., Server], where: str) -> None:
    server = new_server(entry(1) if where == "server.pbtxt" else "")
    edited = write_identity(server.repository, "scaled") / "config.pbtxt"
    if where == "server.pbtxt":
        edited = server.config
    good = edited.read_text()
    with server, Client("http", server) as client:
        for count, (name, (broken, expected)) in enumerate(BROKEN.items(), start=1):
            before = server.pids()
            _replace(edited, broken(good))
            pattern = rf"^E.*{where}:\d+:\d+: .*{expected}"
            until(lambda p=pattern: list(log_lines(server, p)), 30, f"the mistake is reported: {name}")
            assert server.pids() == before
            assert client.infer("scaled", {"IN": np.ones(3, np.float32)})["OUT"] is not None
            assert client.raw.is_server_ready()
            _replace(edited, good.replace("count: 1", f"count: {count + 1}"))
            until(lambda n=count + 1: len(server.pids()) == n, 30, f"the corrected edit is applied: {name}")
            assert set(before) < set(server.pids())


def _replace(path: Path, text: str) -> None:
    path.with_suffix(".draft").write_text(text)
    path.with_suffix(".draft").replace(path)


def test_versions_come_and_go_with_the_version_policy(new_server: Callable[..., Server]) -> None:
    server = new_server(
        'model_config_list: [ { config: { name: "m" version_policy: { latest { num_versions: 2 } } } } ]'
    )
    write_identity(server.repository, "m")
    for version in (2, 3):
        (server.repository / "m" / str(version)).mkdir()
    policies = [
        ("latest { num_versions: 2 }", ["2", "3"]),
        ("all { }", ["1", "2", "3"]),
        ("specific { versions: [ 1, 3 ] }", ["1", "3"]),
        ("latest { num_versions: 1 }", ["3"]),
    ]
    with server, Client("http", server) as client:
        current = policies[0][0]
        for policy, versions in policies:
            if policy != current:
                server.edit(current, policy)
            current = policy
            until(lambda: client.metadata("m")["versions"] == versions, 30, f"versions {versions}")  # noqa: B023
            question = {"IN": np.arange(3, dtype=np.float32)}
            for number in ("1", "2", "3"):
                if number in versions:
                    answer = client.result("m", question, model_version=number)
                    assert answer.get_response()["model_version"] == number
                else:
                    with pytest.raises(InferenceServerException, match=f"version {number} is not found"):
                        client.infer("m", question, model_version=number)
            assert client.result("m", question).get_response()["model_version"] == versions[-1]

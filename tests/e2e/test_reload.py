"""Models that change under load: no request fails, no answer is mixed, nothing is ever less ready than before."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.clients import PROTOCOLS, Client
from tests.support.http import ask
from tests.support.load import Load
from tests.support.repository import SOURCES, instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

EVERY_SECONDS = 1.0
IO = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')}, {tensor('FILES', 'TYPE_INT64', '[ 2 ]')} ]\n"
MAPS = 'input_map { key: "IN" value: "IN" } output_map [ { key: "OUT" value: "OUT" }, { key: "FILES" value: "FILES" } ]'
AROUND = f'platform: "ensemble"\n{IO}ensemble_scheduling {{ step [ {{ model_name: "m" model_version: -1 {MAPS} }} ] }}'
QUESTION = {"IN": np.ones(1, np.float32)}


def write_files(directory: Path, tag: int) -> None:
    """What a version loads, all of one tag."""
    source = (SOURCES / "tagged.py").read_text()
    (directory / "model.py").write_text(source.replace("TAG = 1", f"TAG = {tag}"))
    (directory / "weights").write_text(str(tag))


def write_tagged(repository: Path, name: str, more: str = instances(2)) -> Path:
    """A model whose first version has the tag 1."""
    directory = write_model(repository, name, f'backend: "python"\n{IO}{more}\n')
    write_files(directory / "1", 1)
    return directory


def publish(model: Path, version: int, tag: int) -> None:
    """A new version, written beside the others and renamed into its place."""
    draft = model / f".{version}"
    draft.mkdir()
    write_files(draft, tag)
    draft.rename(model / str(version))


def one_after_another(model: str) -> Callable[[Client, int, int], str]:
    """Requests whose answers must come from files of one tag, never from older ones than the answer before."""
    newest: dict[int, int] = {}

    def ask_one(client: Client, number: int, count: int) -> str:
        question = np.array([number, count], np.float32)
        answer = client.infer(model, {"IN": question})
        tag, weights = (int(value) for value in answer["FILES"])
        if tag != weights:
            return f"code of {tag} with weights of {weights}"
        if tag < newest.get(number, 0):
            return f"{tag} after {newest[number]}"
        newest[number] = tag
        return "" if np.array_equal(answer["OUT"], question) else "another question's answer"

    return ask_one


class Watch:
    """Asks all the time whether the server and a model are ready; use as a context manager."""

    def __init__(self, server: Server, model: str) -> None:
        self._address = server.address("http")
        self._paths = ("/v2/health/ready", f"/v2/models/{model}/ready")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.statuses: list[int] = []

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.statuses += [ask(self._address, "GET", path).status for path in self._paths]

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


def tag_of(client: Client, model: str) -> int:
    return int(client.infer(model, QUESTION)["FILES"][0])


def pids_of(server: Server, model: str) -> set[int]:
    """The processes of a model that serve."""
    found = ask(server.address("http"), "GET", "/v2/health/ready?verbose").json["models"]
    (row,) = [row for row in found if row["name"] == model]
    serving = [version for version in row["versions"] if version["state"] == "READY"]
    return {each["pid"] for version in serving for each in version["instances"] if each["state"] == "ready"}


def reason(client: Client, model: str) -> tuple[str, str]:
    """State and reason of the only version in the index."""
    content = client.raw.get_model_repository_index()
    (row,) = [row for row in content if row["name"] == model]
    return row["state"], row.get("reason", "")


# ----------------------------------------------------------------------------------------------- mode explicit


def test_a_model_that_is_reloaded_every_second(new_server: Callable[..., Server]) -> None:
    _reload_under_load(new_server, seconds=4)


@pytest.mark.large
def test_a_model_that_is_reloaded_every_second_for_a_minute(new_server: Callable[..., Server]) -> None:
    _reload_under_load(new_server, seconds=60)


def _reload_under_load(new_server: Callable[..., Server], seconds: float) -> None:
    server = new_server("", "--model-control-mode=explicit", "--load-model=around")
    model = write_tagged(server.repository, "m")
    write_model(server.repository, "around", AROUND)
    asks = [(protocol, one_after_another(name)) for protocol in PROTOCOLS for name in ("m", "m", "around")]
    with server, Client("grpc", server) as client, Load(server, asks) as load, Watch(server, "m") as watch:
        end, tag = time.monotonic() + seconds, 1
        while time.monotonic() < end:
            next_reload = time.monotonic() + EVERY_SECONDS
            tag += 1
            write_files(model / "1", tag)
            client.raw.load_model("m")
            assert tag_of(client, "m") == tag, "the load was answered"
            until(lambda moment=next_reload: time.monotonic() >= moment or load.failures, 30, "a second has passed")
            assert not load.failures
        assert server.metric("tidepool_model_reloads", model="m", outcome="applied") == tag - 1
    print(f"{tag - 1} reloads, {len(load.outcomes)} requests, {len(watch.statuses)} looks at readiness")
    assert not load.failures
    assert len(load.outcomes) > 100
    assert set(watch.statuses) == {200}


# ----------------------------------------------------------------------------------------------- mode poll


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Mode poll, where the poll never comes: what is seen is seen by file events."""
    flags = ("--model-control-mode=poll", "--repository-poll-secs=3600", "--cache-config=local,size=1048576")
    server = Server(tmp_path_factory.mktemp("polled"), "", *flags)
    write_tagged(server.repository, "versions", "version_policy { latest { num_versions: 1 } }\n" + instances(1))
    write_tagged(server.repository, "edited", instances(2))
    write_tagged(server.repository, "fails")
    with server:
        yield server


def test_new_versions_take_over_under_load(polled: Server) -> None:
    model = polled.repository / "versions"
    asks = [(protocol, one_after_another("versions")) for protocol in PROTOCOLS * 2]
    with Client("http", polled) as client, Load(polled, asks) as load, Watch(polled, "versions") as watch:
        for version in (2, 3):
            publish(model, version, version)
            until(lambda v=version: tag_of(client, "versions") == v, 30, f"version {version} serves")
            assert client.metadata("versions")["versions"] == [str(version)]
    assert not load.failures
    assert set(watch.statuses) == {200}


def test_a_version_that_is_being_written_is_not_loaded(polled: Server) -> None:
    model = polled.repository / "versions"
    with Client("http", polled) as client:
        before = tag_of(client, "versions")
        slow = model / "9"
        slow.mkdir()
        (slow / "model.py").write_text("this is no Pyth")
        for part in range(4):
            (slow / f"part{part}").write_text("x")
            time.sleep(0.3)
            assert tag_of(client, "versions") == before
        shutil.rmtree(slow / "__pycache__", ignore_errors=True)
        write_files(slow, 9)
        until(lambda: tag_of(client, "versions") == 9, 30, "it is loaded when it is whole")
    assert "this is no Pyth" not in polled.log(1_000_000)
    assert "version 9 failed" not in polled.log(1_000_000)


SCHEDULING = (
    "dynamic_batching { priority_levels: 2 default_priority_level: 1 default_queue_policy { max_queue_size: 9 } }",
    "response_cache { enable: true }",
    'metric_tags { key: "team" value: "tide" }',
    'parameters { key: "tenant_key" value { string_value: "who" } } dynamic_batching { }',
    "version_policy { latest { num_versions: 2 } }",
    "version_policy { specific { versions: [ 1 ] } }",
)


def test_edits_of_the_scheduling_start_no_worker(polled: Server) -> None:
    file = polled.repository / "edited" / "config.pbtxt"
    base = file.read_text()
    before = pids_of(polled, "edited")

    def edit(text: str) -> None:
        file.with_suffix(".draft").write_text(text)
        file.with_suffix(".draft").replace(file)

    with Client("http", polled) as client:
        for text in SCHEDULING:
            field = text.split()[0]
            old = client.raw.get_model_config("edited").get(field)
            edit(base + text)
            until(lambda f=field, o=old: client.raw.get_model_config("edited").get(f) != o, 30, f"{text} is applied")
            assert pids_of(polled, "edited") == before
            tag_of(client, "edited")
    edit(base.replace("count: 2", "count: 3"))
    until(lambda: len(pids_of(polled, "edited")) == 3, 30, "one instance more")
    assert before < pids_of(polled, "edited")
    edit(base)
    until(lambda: pids_of(polled, "edited") == before, 30, "the old ones are left")


def test_a_reload_that_fails_is_told_everywhere_and_the_old_one_serves(polled: Server) -> None:
    model = polled.repository / "fails"
    with Client("http", polled) as client, Watch(polled, "fails") as watch:
        (model / "1" / "weights").write_text("no number")
        until(lambda: reason(client, "fails")[1], 30, "the index says why")
        state, why = reason(client, "fails")
        assert state == "READY"
        assert why.startswith("version 1 failed to load: Internal: ")
        assert "invalid literal for int()" in why
        assert tag_of(client, "fails") == 1
        assert polled.metric("tidepool_model_outdated", model="fails") == 1
        assert polled.metric("tidepool_model_reloads", model="fails", outcome="failed") == 1
        assert "model 'fails': version 1 failed to load, the old keeps serving" in polled.log(1_000_000)
        (model / "1" / "weights").write_text("1")
        until(lambda: reason(client, "fails") == ("READY", ""), 30, "it is loaded again")
        assert polled.metric("tidepool_model_outdated", model="fails") == 0
    assert set(watch.statuses) == {200}


def test_what_editors_and_python_leave_starts_nothing(polled: Server) -> None:
    model = polled.repository / "edited"
    before = pids_of(polled, "edited")
    for name in (".config.pbtxt.swp", "config.pbtxt~", ".git/index", "1/__pycache__/x.pyc", "1/4913"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
    write_tagged(polled.repository, "later", instances(1))
    with Client("http", polled) as client:
        until(lambda: client.raw.is_model_ready("later"), 30, "what came later has been seen")
    assert pids_of(polled, "edited") == before
    assert ".git" not in polled.log(1_000_000)


def test_a_directory_that_is_no_model_yet_is_not_held_against_the_server(polled: Server) -> None:
    directory = polled.repository / "unfinished"
    with Client("http", polled) as client:
        directory.mkdir()
        rows = client.raw.get_model_repository_index
        until(lambda: any(r["name"] == "unfinished" and r.get("reason") for r in rows()), 30, "it is in the index")
        assert client.raw.is_server_ready()
        directory.rmdir()
        until(lambda: all(r["name"] != "unfinished" for r in rows()), 30, "it is gone")


def test_a_model_that_is_replaced_as_a_whole_is_never_gone(polled: Server) -> None:
    draft = write_tagged(polled.directory, "whole", instances(1))
    draft.rename(polled.repository / "whole")
    with Client("http", polled) as client:
        until(lambda: client.raw.is_model_ready("whole"), 30, "it is there")
        with Watch(polled, "whole") as watch:
            (polled.repository / "whole").rename(polled.directory / "old")
            write_files(write_tagged(polled.directory, "whole", instances(1)) / "1", 2)
            (polled.directory / "whole").rename(polled.repository / "whole")
            until(lambda: tag_of(client, "whole") == 2, 30, "the new one serves")
    assert set(watch.statuses) == {200}

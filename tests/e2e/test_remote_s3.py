"""A model repository in S3: mirrored, followed, and served from the mirror when it cannot be reached."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import Client
from tests.support.repository import SOURCES, instances, tensor
from tests.support.s3 import KEYS, S3, Way
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0
CONFIG = f'backend: "python" input [ {tensor("IN")} ] output [ {tensor("OUT", "TYPE_STRING", "[ 1 ]")} ] {instances(1)}'
LARGE = 24 << 20


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("s3") / "moto.log") as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write(s3: S3, prefix: str, answer: str, version: int = 1) -> None:
    """The model `telling`, which answers with its version's file."""
    s3.put(f"{prefix}/telling/config.pbtxt", CONFIG)
    s3.put(f"{prefix}/telling/{version}/model.py", (SOURCES / "telling.py").read_bytes())
    s3.put(f"{prefix}/telling/{version}/answer", answer)


def serve(directory: Path, port: int, prefix: str, cache: Path, *flags: str, **env: str) -> Server:
    """A server on `prefix` of the bucket, in mode poll."""
    repository = f"--model-repository=s3://127.0.0.1:{port}/bucket/{prefix}"
    every = ("--model-control-mode=poll", "--repository-poll-secs=1", f"--repository-cache={cache}")
    return Server(directory, "", repository, *every, *flags, env={**KEYS, **env})


def answer(server: Server) -> str:
    """What the model says."""
    try:
        output = Client("http", server).infer("telling", {"IN": np.zeros(1, np.float32)})["OUT"]
    except InferenceServerException as error:
        return str(error)
    return str(output[0].decode())


def index(server: Server) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in Client("http", server).raw.get_model_repository_index()}


def test_a_repository_is_mirrored_followed_and_outlived(s3: S3, tmp_path: Path, cache: Path) -> None:
    write(s3, "life", "one")
    way = Way(s3.port)
    with serve(tmp_path / "first", way.port, "life", cache) as server:
        assert answer(server) == "one"
        assert re.search(r"s3://\S+: 3 of 3 files, ", server.log())
        until(lambda: f"1 model mirrored; the cache {cache} has " in server.log(), SECONDS, "the size is told")
        assert f"s3://127.0.0.1:{way.port}/bucket/life" in server.log()

        s3.put("life/telling/1/answer", "two")
        until(lambda: answer(server) == "two", SECONDS, "a changed object is served")

        # A new version is too large for the way: the old one goes on.
        way.carried, way.breaks_after = 0, 12 << 20
        with way.held():
            write(s3, "life", "three" * (LARGE // 5), 2)
        until(lambda: "s3://" in index(server)["telling"].get("reason", ""), SECONDS, "the index says why")
        row = index(server)["telling"]
        assert (row["version"], row["state"]) == ("1", "READY")
        assert answer(server) == "two"
        way.breaks_after = None
        until(lambda: answer(server) == "three" * 4, SECONDS, "the rest has come")
        until(lambda: "reason" not in index(server)["telling"], SECONDS, "nothing is wrong any more")

    with serve(tmp_path / "warm", way.port, "life", cache) as server:
        assert answer(server) == "three" * 4
        assert " files, " not in server.log()

    way.close()
    with serve(tmp_path / "alone", way.port, "life", cache) as server:
        assert answer(server) == "three" * 4
        assert re.search(r"Could not connect .*; serving what was there at \d{4}-", server.log())


def test_wrong_credentials_have_a_reason_and_can_be_put_right(s3: S3, tmp_path: Path, cache: Path) -> None:
    write(s3, "shut", "open")
    s3.let_in(False)
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"s3": {"s3://elsewhere": {}}}))
    server = serve(tmp_path / "server", s3.port, "shut", cache, TRITON_CLOUD_CREDENTIAL_PATH=str(file))
    server.start(wait="live")
    with server:
        until(lambda: "Cannot match credential for path  s3://" in server.log(), SECONDS, "it says what is missing")
        file.write_text(json.dumps({"s3": {"": {"key_id": "wrong", "secret_key": "wrong", "region": "us-east-1"}}}))
        until(lambda: "The AWS Access Key Id you provided does not exist" in server.log(), SECONDS, "and what is wrong")
        assert server.is_healthy("live")
        assert not server.is_healthy("ready")
        s3.let_in(True)
        server.wait("ready")
        assert answer(server) == "open"


def test_models_are_fetched_when_they_are_loaded(s3: S3, tmp_path: Path, cache: Path) -> None:
    write(s3, "many", "here")
    s3.put("many/large/1/weights", b"x" * 1000)
    s3.put("many/large/config.pbtxt", 'backend: "identity"')
    repository = f"--model-repository=s3://127.0.0.1:{s3.port}/bucket/many"
    flags = (repository, "--model-control-mode=explicit", f"--repository-cache={cache}")
    with Server(tmp_path / "server", "", *flags, env=KEYS) as server:
        client = Client("http", server).raw
        assert set(index(server)) == {"telling", "large"}
        assert not any(cache.rglob("weights"))
        client.load_model("telling")
        assert answer(server) == "here"
        s3.put("many/telling/1/answer", "again")
        client.load_model("telling")
        assert answer(server) == "again"
        assert not any(cache.rglob("weights"))
        with pytest.raises(InferenceServerException, match="there is no directory 'nothing'"):
            client.load_model("nothing")

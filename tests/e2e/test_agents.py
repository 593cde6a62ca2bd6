"""Models whose files are checked: what is not as it was said to be is never served, not even after a crash."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import Client, status_of
from tests.support.http import ask
from tests.support.repository import write_echo
from tests.support.server import Server
from tests.support.waiting import until

QUESTION = {"IN": np.ones(1, np.float32)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("agents"), "", "--model-control-mode=explicit")
    with server:
        yield server


def write_checked(server: Server, name: str) -> Path:
    """A model that names the checksum of its code."""
    model = write_echo(server.repository, name)
    digest = hashlib.md5((model / "1" / "model.py").read_bytes()).hexdigest()
    with (model / "config.pbtxt").open("a") as file:
        parameter = f'parameters {{ key: "MD5:1/model.py" value: "{digest}" }}'
        file.write(f'model_repository_agents {{ agents [ {{ name: "checksum" {parameter} }} ] }}')
    return model


def test_a_file_with_another_checksum_is_refused_and_the_old_one_serves(server: Server) -> None:
    model = write_checked(server, "checked")
    with Client("http", server) as client:
        client.raw.load_model("checked")
        (model / "1" / "model.py").write_text("evil")
        with pytest.raises(InferenceServerException) as refused:
            client.raw.load_model("checked")
        assert status_of(refused.value) == "500"
        assert "failed to load 'checked', failed to poll from model repository: Mismatched MD5 hash for file " in str(
            refused.value
        )
        assert client.infer("checked", QUESTION)["OUT"] is not None


def test_a_worker_that_starts_again_does_not_load_what_has_changed_since(server: Server) -> None:
    model = write_checked(server, "restarted")
    good = (model / "1" / "model.py").read_bytes()

    def instance() -> dict[str, str | int]:
        models = ask(server.address("http"), "GET", "/v2/health/ready?verbose").json["models"]
        (row,) = [row for row in models if row["name"] == "restarted"]
        found: dict[str, str | int] = row["versions"][0]["instances"][0]
        return found

    with Client("http", server) as client:
        client.raw.load_model("restarted")
        (model / "1" / "model.py").write_text("evil")
        os.kill(int(instance()["pid"]), signal.SIGKILL)
        until(lambda: "Mismatched MD5 hash for file 1/model.py" in str(instance().get("reason")), 30, "it is refused")
        assert not client.raw.is_model_ready("restarted")
        (model / "1" / "model.py").write_bytes(good)
        until(lambda: client.raw.is_model_ready("restarted"), 30, "it serves what it should")


SIGN = """
openssl genpkey -algorithm ed25519 -out private.pem
openssl pkey -in private.pem -pubout -out public.pem
cd model_repository/signed
find . -type f ! -name 'MANIFEST.sha256*' -exec sha256sum {} + > MANIFEST.sha256
openssl pkeyutl -sign -rawin -inkey ../../private.pem -in MANIFEST.sha256 -out MANIFEST.sha256.sig
"""


def test_a_server_with_a_key_serves_only_what_is_signed(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--exit-on-error=false", "--strict-readiness=false", "--model-signature-key=public.pem")
    write_echo(server.repository, "signed")
    write_echo(server.repository, "unsigned")
    subprocess.run(SIGN, shell=True, check=True, cwd=server.directory, capture_output=True, timeout=60)
    with server, Client("http", server) as client:
        assert client.infer("signed", QUESTION)["OUT"] is not None
        assert not client.raw.is_model_ready("unsigned")
        reasons = {row["name"]: row.get("reason", "") for row in client.raw.get_model_repository_index()}
        assert "MANIFEST.sha256: cannot be read" in reasons["unsigned"]
        assert not list((server.repository / "signed").rglob("__pycache__"))

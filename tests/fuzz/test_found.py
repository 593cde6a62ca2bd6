"""What fuzzing has found, one by one."""

from pathlib import Path

import grpc
import pytest

from broker.messages import (
    DeclareMetric,
    DropMetric,
    GetRegionStatus,
    GetServerReady,
    Hello,
    Infer,
    Message,
    RegisterRegion,
    encode,
)
from configs.errors import ConfigError
from configs.server import load
from tests.fuzz.fabric import Play
from tests.fuzz.grpc_inputs import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, head, prefixed
from tests.fuzz.targets import connect
from tests.fuzz.watch import Watch
from tests.golden.exchange import INFERENCE
from tests.support.server import Server

RAW_WITHOUT_INPUT = Infer(1, "identity_fp32", -1, "", (), (), {}, 0, 0, 0, 0, True, 0.0)


@pytest.mark.parametrize(
    ("role", "messages"),
    [
        ("http", [RAW_WITHOUT_INPUT]),
        ("http", [RegisterRegion(1, "cpu", "r", "/key", 0, 4, 0, b"")]),
        ("http", [GetRegionStatus(1, "cpu", "")]),
        ("worker", [DeclareMetric(1, "family", "counter", "", None, ()), DropMetric("family", "text")]),
        ("http", [Hello(0, "http", 1)]),
    ],
    ids=lambda given: type(given[-1]).__name__,
)
def test_a_lying_peer_is_killed_and_the_broker_goes_on(role: str, messages: list[Message], tmp_path: Path) -> None:
    play = Play(load([f"--model-repository={tmp_path}"]))
    liar = play.token_of(role)
    play.take(liar, encode(messages))
    assert liar not in play.core.peers
    assert play.take(play.token_of("grpc"), encode([GetServerReady(1)])) == ""


@pytest.mark.parametrize("flag", ["--model-repository=" + "x" * 5000, "--grpc-root-cert=\udcff"])
def test_names_that_cannot_be_are_refused(flag: str) -> None:
    with pytest.raises(ConfigError):
        load([flag])


def test_a_null_byte_in_a_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server.pbtxt").write_text('http_client_ca: "\\000"')
    with pytest.raises(ConfigError, match="http_client_ca: a null byte is not allowed"):
        load([f"--config={tmp_path}/server.pbtxt"])


def test_a_path_that_is_no_utf8_does_not_stop_grpc(server: Server) -> None:
    call = frame(HEADERS, END_HEADERS, 1, head(b"/a.B/\xe5")) + frame(DATA, END_STREAM, 1, prefixed(b""))
    with Watch(server), connect(server.address("grpc")) as connection:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + call)
        assert connection.recv(1000)
        with grpc.insecure_channel(server.address("grpc")) as channel:
            live = channel.unary_unary(f"/{INFERENCE}/ServerLive", bytes, bytes)
            assert live(b"", timeout=20) == b"\x08\x01"

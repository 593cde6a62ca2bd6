"""Good inputs to make bad ones of: the requests of the golden tests, and configurations."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.golden.configurations import MODELS
from tests.golden.replay import recordings
from tests.golden.scenario import Grpc, Http

ROOT = Path(__file__).parents[2]
TOPICS = ("core", "decoupled")
LONG_WAITS = (b"Expect: 100-continue",)
"""Requests after which a server waits: there are other ways to be slow."""


class Request(NamedTuple):
    """An HTTP request in its parts."""

    line: bytes
    headers: tuple[bytes, ...]
    body: bytes


@cache
def http_requests() -> tuple[Request, ...]:
    """Every different HTTP request."""
    found = {
        part: None
        for name in TOPICS
        for scenarios in recordings()[name].values()
        for each in scenarios
        for step in each.scenario.steps
        if isinstance(step, Http) and step.port == "http"
        for part in step.parts
        if part.count(b"\r\n\r\n") and not any(mark in part for mark in LONG_WAITS)
    }
    return tuple(parsed(part) for part in found)


def parsed(data: bytes) -> Request:
    """A request's bytes in parts."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    return Request(line, tuple(headers), body)


@cache
def grpc_calls() -> tuple[tuple[str, bytes], ...]:
    """Every different gRPC request: the RPC and its message."""
    found = {
        (step.rpc, request): None
        for name in TOPICS
        for scenarios in recordings()[name].values()
        for each in scenarios
        for step in each.scenario.steps
        if isinstance(step, Grpc)
        for request in step.requests
    }
    return tuple(found)


@cache
def other_grpc_calls() -> tuple[tuple[str, bytes], ...]:
    """Those that do not change what is logged."""
    return tuple(call for call in grpc_calls() if not call[0].endswith("/LogSettings"))


@cache
def model_configs() -> tuple[bytes, ...]:
    """Texts of config.pbtxt."""
    files = [*MODELS.glob("*/config.pbtxt"), *ROOT.glob("examples/model_repository/*/config.pbtxt")]
    return tuple(file.read_bytes() for file in sorted(files))


@cache
def server_configs() -> tuple[bytes, ...]:
    """Texts of server.pbtxt."""
    files = [ROOT / "configs" / "server.pbtxt", *(ROOT / "configs" / "examples").glob("*.pbtxt")]
    return tuple(file.read_bytes() for file in sorted(files))

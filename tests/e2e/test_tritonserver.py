"""The installed command `tritonserver`, with the arguments that deployments of Triton give it."""

import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.clients import Client
from tests.support.repository import write_echo
from tests.support.server import Server

ROOT = Path(__file__).parents[2]


def script(name: str) -> list[str]:
    """What pip makes of a command of the project."""
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][name]
    module, _, function = target.partition(":")
    return [sys.executable, "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]


def documented() -> list[str]:
    """The words of the page's `docker run`, from the image's command on."""
    (command,) = re.findall(r"^\$ docker run .*? my-triton-pytorch (.*)$", _page(), re.MULTILINE)
    return shlex.split(command)


def _page() -> str:
    return (ROOT / "docs" / "operations.md").read_text()


def test_the_documented_command_serves(new_server: Callable[..., Server]) -> None:
    server = new_server()
    program, *flags = documented()
    assert flags[1:] == ["--log-verbose=1", "--backend-config=python,shm-default-size=2147483648"]
    server.launcher, server.takes_file = script(program), False
    server.flags = [flag.replace("=/models", f"={server.repository}") for flag in flags]
    write_echo(server.repository, "echo")
    sent = np.arange(4096, dtype=np.float32)
    with server, Client("http", server) as client:
        assert (client.infer("echo", {"IN": sent})["OUT"] == sent).all()
        assert max(region.stat().st_size for region in server.shm_regions()) >= 2147483648
        assert "V1" in server.log()

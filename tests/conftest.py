"""What all tests share: servers that are stopped and checked, and their logs in the report of a failed test."""

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.server import Server, running

# The gate tries the same examples each time, within a bounded time; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("gate", deadline=None, derandomize=True, max_examples=30)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


ROOT = Path(__file__).parent.parent
if sys.dont_write_bytecode:  # each of the many processes would compile all that it imports
    sys.dont_write_bytecode = False
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".pytest_cache" / "bytecode")


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`new_server(text, *flags, env=...)`: a server that is not started yet; see `Server`. Stopped after the test."""
    with ExitStack() as stack:

        def make(text: str = "", *flags: str, env: dict[str, str] | None = None) -> Server:
            server = Server(tmp_path / "server", text, *flags, env=env)
            stack.push(server.__exit__)
            return server

        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the logs of the servers that run when a test fails."""
    report = yield
    if report.failed:
        for server in running:
            report.sections.append((f"log of the server in {server.directory}", server.log()))
    return report

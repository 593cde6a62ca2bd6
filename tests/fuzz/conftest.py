"""The server that is fuzzed."""

from collections.abc import Iterator

import pytest

from tests.fuzz.watch import fuzzed_server
from tests.support.server import Server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests, one after the other."""
    with fuzzed_server(tmp_path_factory.mktemp("fuzzed")) as running:
        yield running

"""Models that come and go, again and again, while another one works: nothing is left of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from tests.support.clients import PROTOCOLS, Client
from tests.support.load import Load, echo
from tests.support.repository import write_echo
from tests.support.server import Server
from tests.support.waiting import until

LARGE = np.ones(100_000, np.float32)
"""So that tensors go through shared memory."""


class Held(NamedTuple):
    """What the processes that stay hold, by role, and what there is of the server."""

    rss: dict[str, float]  # MiB
    descriptors: dict[str, int]
    maps: dict[str, int]
    processes: int
    regions: int

    @staticmethod
    def by(server: Server) -> "Held":
        roles = ("frontends.http", "frontends.grpc", "frontends.metrics", "broker.repository")
        found = {"broker": psutil.Process(server.process.pid), **{role: server.children(role)[0] for role in roles}}
        return Held(
            {role: process.memory_info().rss / 2**20 for role, process in found.items()},
            {role: process.num_fds() for role, process in found.items()},
            {role: len(process.memory_maps(grouped=False)) for role, process in found.items()},
            len(server.children()),
            len(server.shm_regions()),
        )


def test_models_that_come_and_go_leave_nothing_behind(new_server: Callable[..., Server]) -> None:
    _churn(new_server, warm_up=2, cycles=4, growth=4.0)


@pytest.mark.large
@pytest.mark.timeout(3600)
def test_a_thousand_models_that_come_and_go_leave_nothing_behind(new_server: Callable[..., Server]) -> None:
    _churn(new_server, warm_up=100, cycles=1000, growth=8.0)


def _churn(new_server: Callable[..., Server], warm_up: int, cycles: int, growth: float) -> None:
    """Load, ask, unload; `growth` is how many MiB a process may have more in the end."""
    server = new_server("", "--model-control-mode=explicit", "--load-model=stays")
    write_echo(server.repository, "stays")
    write_echo(server.repository, "goes")
    with server, Client("grpc", server) as client:
        processes = len(server.children())
        with Load(server, [(protocol, echo("stays", 2000)) for protocol in PROTOCOLS]) as load:
            for cycle in range(warm_up + cycles):
                if cycle == warm_up:
                    before = _held_at_rest(server, processes)
                client.raw.load_model("goes")
                assert np.array_equal(client.infer("goes", {"IN": LARGE})["OUT"], LARGE)
                client.raw.unload_model("goes")
                assert not load.failures
            after = _held_at_rest(server, processes)
        print(f"{cycles} cycles, {len(load.outcomes)} requests beside them\nbefore {before}\nafter  {after}")
        assert not load.failures
        assert after.processes == before.processes
        assert after.regions <= before.regions
        for role, rss in before.rss.items():
            assert after.rss[role] - rss < growth, f"{role} has grown"
            assert after.descriptors[role] <= before.descriptors[role] + 2, f"{role} keeps descriptors"
            assert after.maps[role] <= before.maps[role] + 20, f"{role} keeps mappings"


def _held_at_rest(server: Server, processes: int) -> Held:
    """What is held when the last model is gone for certain."""
    until(lambda: len(server.children()) == processes, 60, "its worker is gone")
    return Held.by(server)

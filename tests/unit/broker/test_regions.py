"""The books about regions: who hears of them, and when their names go."""

import pytest

from broker.effects import Send, Unlink
from broker.messages import PeerGone, ProtocolError, RegionClosed, RegionOpened
from broker.regions import Regions

A, B = "tidepool-0a1b-w1-0", "tidepool-0a1b-w2-0"
INPUTS = "tidepool-0a1b-h1-0"
NOBODY: frozenset[str] = frozenset()


def test_readers_hear_of_regions_that_come_and_go() -> None:
    regions = Regions()
    assert regions.opened("w1", A, ["h1", "g1"]) == [Send("h1", RegionOpened(A)), Send("g1", RegionOpened(A))]
    assert regions.closed("w1", A, ["h1"]) == [Send("h1", RegionClosed(A))]
    assert regions.closed("w1", A, ["h1"]) == []


def test_a_new_reader_hears_of_the_regions_of_the_owners_that_concern_it() -> None:
    regions = Regions()
    regions.opened("w1", A, [])
    regions.opened("h1", INPUTS, [])
    assert regions.joined("g1", ["w1", "w2"]) == [Send("g1", RegionOpened(A))]


def test_nobody_closes_the_region_of_another() -> None:
    regions = Regions()
    regions.opened("w1", A, [])
    assert regions.closed("w2", A, ["h1"]) == []
    assert regions.joined("g1", ["w1"]) == [Send("g1", RegionOpened(A))]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "tidepool-0a1b-w1-../x", B, "tidepool-0a1b-w1-0/../../x", "", "x-w1-0"]
)
def test_a_region_bears_the_name_of_its_owner(name: str) -> None:
    with pytest.raises(ProtocolError):
        Regions().opened("w1", name, [])


def test_a_dead_workers_region_is_unlinked_when_all_frontends_have_dropped_it() -> None:
    regions = Regions()
    regions.opened("w1", A, ["h1", "g1"])
    regions.worker_lost("w1")
    assert regions.is_awaited(A)
    assert regions.close_orphans(["h1", "g1"], NOBODY) == [Send("g1", RegionClosed(A)), Send("h1", RegionClosed(A))]
    assert regions.is_awaited(A)
    assert regions.dropped("h1", A) == []
    assert regions.dropped("h1", A) == []
    assert regions.dropped("g1", A) == [Unlink(A)]
    assert not regions.is_awaited(A)
    assert regions.dropped("g1", A) == []


def test_a_dead_workers_region_stays_while_a_response_in_it_is_held_back() -> None:
    regions = Regions()
    regions.opened("w1", A, ["h1"])
    regions.worker_lost("w1")
    assert regions.close_orphans(["h1"], {A}) == []
    assert regions.is_awaited(A)
    assert regions.close_orphans(["h1"], NOBODY) == [Send("h1", RegionClosed(A))]
    assert regions.close_orphans(["h1"], NOBODY) == []


def test_a_worker_hears_once_of_a_region_that_it_is_to_read_and_of_its_end() -> None:
    regions = Regions()
    regions.opened("w1", A, ["h1"])
    assert regions.lend(A, "w2") == [Send("w2", RegionOpened(A))]
    assert regions.lend(A, "w2") == []
    assert regions.owner(A) == "w1"
    assert regions.closed("w1", A, ["h1"]) == [Send("h1", RegionClosed(A)), Send("w2", RegionClosed(A))]


def test_a_dead_workers_region_can_be_lent_as_long_as_it_is_held() -> None:
    regions = Regions()
    regions.opened("w1", A, ["h1"])
    regions.lend(A, "w2")
    regions.worker_lost("w1")
    assert regions.owner(A) is None
    assert regions.close_orphans(["h1"], [A]) == []
    regions.worker_lost("w2")
    assert regions.lend(A, "w3") == [Send("w3", RegionOpened(A))]
    assert regions.close_orphans(["h1"], NOBODY) == [Send("h1", RegionClosed(A)), Send("w3", RegionClosed(A))]
    assert regions.dropped("h1", A) == [Unlink(A)]


def test_what_a_dead_caller_has_lent_is_not_closed_before_the_rest() -> None:
    regions = Regions()
    regions.opened("w1", A, ["h1", "w2", "w3"])
    regions.lend(A, "w2")
    assert regions.caller_lost("w1", ["w2", "w3"], []) == [Send("w2", PeerGone("w1")), Send("w3", PeerGone("w1"))]
    regions.worker_lost("w1")
    closed = [Send(reader, RegionClosed(A)) for reader in ("h1", "w2", "w3")]
    assert regions.close_orphans(["h1"], NOBODY) == closed


def test_without_frontends_a_dead_workers_region_goes_at_once() -> None:
    regions = Regions()
    regions.opened("w1", A, [])
    regions.worker_lost("w1")
    assert regions.close_orphans([], NOBODY) == [Unlink(A)]


def test_a_dead_frontend_is_not_waited_for_and_its_memory_goes() -> None:
    regions = Regions()
    regions.opened("w1", A, ["h1"])
    regions.opened("h1", INPUTS, ["w2"])
    regions.worker_lost("w1")
    regions.close_orphans(["h1"], NOBODY)
    assert regions.frontend_lost("h1", ["w2"]) == [
        Send("w2", RegionClosed(INPUTS)),
        Send("w2", PeerGone("h1")),
        Unlink(INPUTS),
        Unlink(A),
    ]

"""Shared memory that clients register: names, errors, and regions that are in use when they are to go."""

import pytest

from broker.client_regions import ClientRegions
from broker.effects import Send
from broker.messages import (
    ClientRegion,
    ClientRegionGone,
    ErrorCode,
    GetRegionStatus,
    Infer,
    RegisterRegion,
    Target,
    UnregisterRegion,
)
from broker.validation import Rejected
from shm.ref import TensorRef
from tests.unit.broker.describe import infer

WORKERS = ["w1", "w2"]


def register(regions: ClientRegions, name: str, kind: str = "system", offset: int = 0, byte_size: int = 100) -> None:
    wanted = RegisterRegion(1, name, kind, f"/{name}" if kind == "system" else "", offset, byte_size, 2, b"handle")
    regions.register(wanted, [])


def unregister(regions: ClientRegions, name: str, kind: str = "system") -> list[Send]:
    return [e for e in regions.unregister(UnregisterRegion(1, name, kind), WORKERS) if isinstance(e, Send)]


def status(regions: ClientRegions, name: str = "", kind: str = "system") -> list[dict[str, object]]:
    return regions.status(GetRegionStatus(1, name, kind))


def reading(name: str, offset: int = 0, byte_size: int = 16, *targets: Target) -> Infer:
    ref = TensorRef("IN", "FP32", (byte_size // 4,), byte_size, None, f"@{name}", offset)
    return infer(1, inputs=(ref,), targets=targets)


def refused(regions: ClientRegions, request: Infer) -> tuple[ErrorCode, str]:
    with pytest.raises(Rejected) as error:
        regions.resolve(request)
    return error.value.code, str(error.value)


def test_workers_hear_of_a_region_when_it_is_registered_and_when_they_join() -> None:
    regions = ClientRegions()
    wanted = RegisterRegion(1, "r", "system", "/key", 8, 100, 0, b"")
    region = ClientRegion(1, "system", "/key", 8, 100, 0, b"")
    assert regions.register(wanted, WORKERS) == [Send("w1", region), Send("w2", region)]
    assert regions.joined("w3") == [Send("w3", region)]
    assert unregister(regions, "r") == [Send("w1", ClientRegionGone(1)), Send("w2", ClientRegionGone(1))]
    assert regions.joined("w4") == []


def test_status_has_the_regions_of_a_kind_by_name() -> None:
    regions = ClientRegions()
    register(regions, "s2", offset=8)
    register(regions, "s1")
    register(regions, "c", "cuda")
    assert status(regions) == [
        {"name": "s1", "key": "/s1", "offset": 0, "byte_size": 100},
        {"name": "s2", "key": "/s2", "offset": 8, "byte_size": 100},
    ]
    assert status(regions, "c", "cuda") == [{"name": "c", "device_id": 2, "byte_size": 100}]
    assert status(ClientRegions()) == []


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("x", "system", "Unable to find system shared memory region: 'x'"),
        ("x", "cuda", "Unable to find cuda shared memory region: 'x'"),
        ("s", "cuda", "The region named 's' is registered as system shared memory, not CUDA shared memory"),
        ("c", "system", "The region named 'c' is registered as CUDA shared memory, not system shared memory"),
    ],
)
def test_status_of_what_is_not_there(name: str, kind: str, error: str) -> None:
    regions = ClientRegions()
    register(regions, "s")
    register(regions, "c", "cuda")
    with pytest.raises(Rejected) as refusal:
        status(regions, name, kind)
    assert (refusal.value.code, str(refusal.value)) == (ErrorCode.NOT_FOUND, error)


@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_a_name_is_registered_once_whatever_the_kind(kind: str) -> None:
    regions = ClientRegions()
    register(regions, "r")
    with pytest.raises(Rejected) as refusal:
        register(regions, "r", kind)
    assert (refusal.value.code, str(refusal.value)) == (
        ErrorCode.ALREADY_EXISTS,
        "shared memory region 'r' already in manager",
    )


def test_unregister_is_of_one_kind_and_silent_about_the_rest() -> None:
    regions = ClientRegions()
    for name, kind in (("s1", "system"), ("s2", "system"), ("c", "cuda")):
        register(regions, name, kind)
    assert unregister(regions, "unknown") == []
    assert unregister(regions, "c") == []
    assert {send.message for send in unregister(regions, "")} == {ClientRegionGone(1), ClientRegionGone(2)}
    assert status(regions) == []
    assert len(status(regions, kind="cuda")) == 1


def test_references_become_numbers_and_absolute_offsets() -> None:
    regions = ClientRegions()
    register(regions, "other")
    register(regions, "r", offset=1000)
    resolved, used = regions.resolve(reading("r", 4, 16, Target("OUT", "@r", 32, 8)))
    assert used == (2, 2)
    assert (resolved.inputs[0].region, resolved.inputs[0].offset) == ("@2", 1004)
    assert resolved.targets == (Target("OUT", "@2", 1032, 8),)


def test_a_request_without_client_memory_is_left_as_it_is() -> None:
    request = infer(1)
    assert ClientRegions().resolve(request) == (request, ())


@pytest.mark.parametrize(
    ("name", "offset", "byte_size", "code", "error"),
    [
        ("x", 0, 4, ErrorCode.NOT_FOUND, "Unable to find shared memory region: 'x'"),
        ("r", 100, 4, ErrorCode.INVALID_ARG, "Invalid offset for shared memory region: 'r'"),
        ("r", 2**64 - 4, 8, ErrorCode.INVALID_ARG, "Invalid offset for shared memory region: 'r'"),
        ("r", 97, 4, ErrorCode.INVALID_ARG, "Invalid offset + byte size for shared memory region: 'r'"),
        ("r", 4, 2**64 - 4, ErrorCode.INVALID_ARG, "Invalid offset + byte size for shared memory region: 'r'"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, offset: int, byte_size: int, code: ErrorCode, error: str) -> None:
    regions = ClientRegions()
    register(regions, "r")
    assert refused(regions, reading(name, offset, byte_size)) == (code, error)
    assert refused(regions, infer(1, targets=(Target("OUT", f"@{name}", offset, byte_size),))) == (code, error)
    assert unregister(regions, "r"), "it is not in use"


def test_the_last_bytes_of_a_region_are_its_own() -> None:
    regions = ClientRegions()
    register(regions, "r")
    regions.resolve(reading("r", 96, 4))


def test_a_region_in_use_goes_with_its_last_request() -> None:
    regions = ClientRegions()
    register(regions, "r")
    _, first = regions.resolve(reading("r"))
    _, second = regions.resolve(reading("r"))
    assert unregister(regions, "r") == []
    assert refused(regions, reading("r"))[1] == "Unable to find shared memory region: 'r'"
    assert len(status(regions)) == 1
    with pytest.raises(Rejected, match="already in manager"):
        register(regions, "r")
    assert regions.release(first, WORKERS) == []
    assert regions.release(second, WORKERS) == [Send(worker, ClientRegionGone(1)) for worker in WORKERS]
    assert status(regions) == []


def test_a_name_that_is_registered_again_is_another_region() -> None:
    regions = ClientRegions()
    register(regions, "r")
    unregister(regions, "r")
    register(regions, "r")
    assert regions.resolve(reading("r"))[1] == (2,)

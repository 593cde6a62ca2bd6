"""The fabric's sockets: who said what, in order; what is no message, who is not there; nothing blocks."""

import os
import select
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from broker.messages import Beat, Cancel, Log, Message, ProtocolError, RegionOpened
from broker.transport import DRAIN_LIMIT, MAX_PATH, Dealer, Router, Unreachable
from tests.support.waiting import until

SECONDS = 20.0


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tp-") as directory:
        yield Path(directory) / "s"


@pytest.fixture
def router(path: Path) -> Iterator[Router]:
    with closing(Router(path)) as made:
        yield made


def peer(path: Path, token: str) -> Dealer:
    return Dealer(str(path), token)


Arrived = list[tuple[str, list[Message] | ProtocolError]]


def receive(router: Router, count: int) -> Arrived:
    """Exactly `count` packed lists, waiting on the descriptor as the broker does."""
    arrived: Arrived = []
    poll = select.epoll()
    poll.register(router.fileno(), select.EPOLLIN)
    deadline = time.monotonic() + SECONDS
    while len(arrived) < count:
        assert time.monotonic() < deadline, f"only {len(arrived)} of {count}"
        if not router.has_more():
            poll.poll(1.0)
        arrived += router.receive()
    poll.close()
    assert len(arrived) == count
    return arrived


def heard(dealer: Dealer, count: int) -> list[Message]:
    messages: list[Message] = []

    def listen() -> bool:
        dealer.wait(0.1)
        messages.extend(dealer.receive())
        return len(messages) >= count

    until(listen, SECONDS, f"{count} messages")
    return messages


def test_lists_arrive_in_order_and_say_who_sent_them(router: Router, path: Path) -> None:
    with closing(peer(path, "w1")) as one, closing(peer(path, "h2")) as two:
        one.send([Beat(1, 2), Cancel(3)])
        one.send([Cancel(4)])
        two.send([Log("I", "hello")])
        arrived = receive(router, 3)
        assert [messages for token, messages in arrived if token == "w1"] == [[Beat(1, 2), Cancel(3)], [Cancel(4)]]
        assert ("h2", [Log("I", "hello")]) in arrived
        router.send("w1", [RegionOpened("a"), RegionOpened("b")])
        router.send("w1", [RegionOpened("c")])
        assert heard(one, 3) == [RegionOpened("a"), RegionOpened("b"), RegionOpened("c")]
        assert two.receive() == []


def test_a_flood_is_taken_in_portions(router: Router, path: Path) -> None:
    with closing(peer(path, "w1")) as one:
        for number in range(2 * DRAIN_LIMIT + 5):
            one.send([Cancel(number)])
        arrived: Arrived = []
        until(router.has_more, SECONDS, "something is there")
        portions = 0
        deadline = time.monotonic() + SECONDS
        while len(arrived) < 2 * DRAIN_LIMIT + 5:
            assert time.monotonic() < deadline
            portion = router.receive()
            assert len(portion) <= DRAIN_LIMIT
            portions += bool(portion)
            arrived += portion
        assert portions >= 3
        assert arrived == [("w1", [Cancel(number)]) for number in range(2 * DRAIN_LIMIT + 5)]


def test_a_large_list_travels(router: Router, path: Path) -> None:
    text = "x" * (64 << 20)
    with closing(peer(path, "w1")) as one:
        one.send([Log("I", text)])
        assert receive(router, 1) == [("w1", [Log("I", text)])]
        router.send("w1", [Log("I", text)])
        assert heard(one, 1) == [Log("I", text)]


def test_nonsense_is_an_error_of_its_sender_alone(router: Router, path: Path) -> None:
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.set(zmq.IDENTITY, b"\xffw\x01")
    raw.connect(f"ipc://{path}")
    try:
        with closing(peer(path, "w1")) as one:
            raw.send(b"\xc1")
            raw.send_multipart([b"two", b"frames"])
            raw.send(b"")
            one.send([Cancel(1)])
            arrived = receive(router, 4)
            errors = [(token, messages) for token, messages in arrived if isinstance(messages, ProtocolError)]
            assert {token for token, _ in errors} == {"\ufffdw\x01"}
            assert len(errors) == 3
            assert ("w1", [Cancel(1)]) in arrived
    finally:
        context.destroy(linger=0)


def test_a_second_peer_of_the_same_name_is_not_heard(router: Router, path: Path) -> None:
    with closing(peer(path, "w1")) as one:
        one.send([Cancel(1)])
        assert receive(router, 1) == [("w1", [Cancel(1)])]
        with closing(peer(path, "w1")) as other:
            other.send([Cancel(2)])
            one.send([Cancel(3)])
            assert receive(router, 1) == [("w1", [Cancel(3)])]
            router.send("w1", [Cancel(4)])
            assert heard(one, 1) == [Cancel(4)]
            assert other.receive() == []


def test_who_is_not_there_cannot_be_reached(router: Router, path: Path) -> None:
    with pytest.raises(Unreachable, match="w1"):
        router.send("w1", [Cancel(1)])
    one = peer(path, "w1")
    one.send([Cancel(1)])
    receive(router, 1)
    router.send("w1", [Cancel(2)])
    one.close()

    def is_gone() -> bool:
        router.receive()
        try:
            router.send("w1", [Cancel(3)])
        except Unreachable:
            return True
        return False

    until(is_gone, SECONDS, "the end of the connection is seen")


def test_sending_to_one_that_does_not_read_blocks_nobody(router: Router, path: Path) -> None:
    with closing(peer(path, "w1")) as one:
        one.send([Cancel(1)])
        receive(router, 1)
        began = time.monotonic()
        for number in range(5000):
            router.send("w1", [Log("I", "x" * 1000), Cancel(number)])
        assert time.monotonic() - began < SECONDS
        messages = heard(one, 10_000)
        assert [message.request for message in messages if isinstance(message, Cancel)] == list(range(5000))


def test_what_was_sent_before_the_end_still_arrives(router: Router, path: Path) -> None:
    with closing(peer(path, "w1")) as one:
        one.send([Cancel(1)])
    assert receive(router, 1) == [("w1", [Cancel(1)])]


def test_another_thread_can_wake_a_peer(router: Router, path: Path) -> None:
    with closing(peer(path, "w1")) as one:
        threading.Timer(0.1, one.wake).start()
        began = time.monotonic()
        one.wait(SECONDS)
        assert time.monotonic() - began < SECONDS / 2
        began = time.monotonic()
        one.wait(0.05)
        assert time.monotonic() - began >= 0.04, "once is once"


def test_a_path_that_is_too_long_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="set TMPDIR to a shorter one"):
        Router(tmp_path / ("x" * MAX_PATH))


def test_nothing_stays_open(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with closing(Router(path)) as router, closing(peer(path, "w1")) as one:
        one.send([Cancel(1)])
        receive(router, 1)
    until(lambda: len(os.listdir("/proc/self/fd")) == before, SECONDS, "all descriptors are closed")

"""What stands in front of the lines that a model prints."""

import asyncio
import io
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import Item
from workers import current
from workers.coroutines import Coroutines


def requests(*ids: str) -> list[Item]:
    return [Item(one, (), (), {}, 0, 0, 0, 0, "http") for one in ids]


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    yield
    current.work_on(())


def printed(*texts: str) -> str:
    buffer = io.BytesIO()
    stream = current.Tagged(buffer, "utf-8", write_through=True)
    for text in texts:
        assert stream.write(text) == len(text)
    return buffer.getvalue().decode()


@pytest.mark.parametrize(
    ("ids", "tag"),
    [
        ([], ""),
        ([""], ""),
        (["a"], "[request id: a] "),
        (["", "a", "b"], "[request id: a, b] "),
        (["a", "b", "c", "d"], "[request id: a, b, c, ...] "),
        (["a\nE1120 forged\x1b[0m"], "[request id: a?E1120 forged?[0m] "),
        (["x" * 100], f"[request id: {'x' * 64}...] "),
    ],
)
def test_tags(ids: list[str], tag: str) -> None:
    current.work_on(requests(*ids))
    assert current.tag() == tag


def test_every_line_begins_with_the_tag() -> None:
    current.work_on(requests("a"))
    assert printed("one", "\n", "two\nthree\n", "\n", "", "four") == (
        "[request id: a] one\n[request id: a] two\n[request id: a] three\n\n[request id: a] four"
    )


@given(st.lists(st.text(st.sampled_from("ab\n"))))
def test_nothing_is_lost(texts: list[str]) -> None:
    current.work_on(requests())
    assert printed(*texts) == "".join(texts)
    current.work_on(requests("i"))
    assert printed(*texts).replace("[request id: i] ", "") == "".join(texts)
    lines = printed(*texts).split("\n")
    assert all(line.startswith("[request id: i] ") for line in lines if line)
    current.work_on(())


def test_a_coroutine_keeps_its_request_when_others_are_executed() -> None:
    coroutines, found = Coroutines(), list[str]()
    is_over = threading.Event()
    started, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        await may_end.wait()
        found.append(current.tag())
        is_over.set()

    async def end() -> None:
        await started.wait()
        may_end.set()

    current.work_on(requests("first"))
    coroutines.start(work())
    current.work_on(requests("second"))
    coroutines.start(end())
    assert is_over.wait(20)
    coroutines.close()
    assert found == ["[request id: first] "]

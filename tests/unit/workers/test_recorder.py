"""Which records stay, and which requests are kept at all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode, Item, Result
from shm.tensor import Regions
from tests.unit.workers.support import ref
from workers.client_memory import ClientMemory
from workers.foreground import recorded
from workers.inputs import Inputs
from workers.recorder import Recorder, prune
from workers.tensor_files import Unreadable

FAILED = Result(ErrorCode.INTERNAL, "no", (), {})


def record(directory: Path, number: int, size: int) -> None:
    for suffix in (".json", ".npz"):
        path = directory / f"m-{number}{suffix}"
        path.write_bytes(b"x" * (size if suffix == ".npz" else 0))
        os.utime(path, (number, number))


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 10), st.integers(0, 200))
def test_the_newest_that_fit_stay(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], max_records: int, max_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("records")
    for number, size in enumerate(sizes):
        record(directory, number, size)
    prune(directory, max_records, max_bytes)
    left = sorted(int(path.stem.partition("-")[2]) for path in directory.glob("*.json"))
    assert {path.stem for path in directory.glob("*.npz")} == {f"m-{number}" for number in left}
    assert left == list(range(len(sizes) - len(left), len(sizes)))
    assert len(left) <= max_records
    assert sum(sizes[number] for number in left) <= max_bytes
    if len(left) < min(len(sizes), max_records):
        assert sum(sizes[number] for number in [*left, len(sizes) - len(left) - 1]) > max_bytes


def test_a_failed_request_is_kept_as_it_came(tmp_path: Path) -> None:
    lines: list[str] = []
    recorder = Recorder(tmp_path, Inputs(Regions(), ClientMemory()), ("m", 3, "m_0_0"), lines.append)
    refs = (
        ref("A/../b", np.arange(6, dtype=np.float32).reshape(2, 3)),
        ref("file", np.array([b"x\0", b""], dtype=object)),
    )
    item = Item("id", refs, ("OUT",), {"k": 1}, 7, 1, 2, 5, "http")
    recorder.executed([item, item], [FAILED, Result(ErrorCode.OK, "", (), {})])
    recorder.failed(item, Result(ErrorCode.CANCELLED, "gone", (), {}))
    recorder.close()
    (path,) = tmp_path.glob("*.json")
    assert recorded(path) == item._replace(reader="run")
    found = json.loads(path.read_text())
    assert (found["model"], found["version"], found["instance"], found["error"]) == ("m", 3, "m_0_0", "no")
    with np.load(path.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(arrays["A/../b"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert not lines


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lines: list[str] = []
    recorder = Recorder(tmp_path / "file", Inputs(Regions(), ClientMemory()), ("m", 1, "m_0"), lines.append)
    recorder.failed(Item("", (), (), {}, 0, 0, 0, 0, "http"), FAILED)
    recorder.close()
    (line,) = lines
    assert line.startswith("a failed request cannot be recorded: ")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"inputs": [{"name": "A"}]}'])
def test_what_is_no_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    np.savez(tmp_path / "r.npz", A=np.zeros(1))
    with pytest.raises(Unreadable, match="is no recorded request"):
        recorded(tmp_path / "r.json")

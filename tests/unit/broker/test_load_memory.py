"""What loads take: guessed from files, then measured, and remembered from one server to the next."""

import json
from pathlib import Path

import pytest

from broker.load_memory import BASE, FACTOR, MOST_MODELS, LoadMemory, default_path, guess
from broker.memory import LOAD_SHARE, load_memory
from tests.unit.broker.describe import description

MIB = 1 << 20


def test_a_guess_is_made_from_the_largest_version(tmp_path: Path) -> None:
    for version, size in ((1, 10), (2, 1000), (3, 5000)):
        (tmp_path / str(version) / "deeper").mkdir(parents=True)
        (tmp_path / str(version) / "deeper" / "weights").write_bytes(bytes(size))
    assert guess(description(path=str(tmp_path), versions=(1, 2))) == BASE + FACTOR * 1000
    assert guess(description(path=str(tmp_path / "none"))) == BASE


def test_what_was_measured_counts_until_the_configuration_changes(tmp_path: Path) -> None:
    known = LoadMemory(None)
    known.measured("/models/m", "a", 7 * MIB)
    known.measured("/models/m", "a", 5 * MIB)
    assert known.expected(description("m")) == 7 * MIB
    assert known.expected(description("m", fingerprint="b")) == BASE
    known.measured("/models/m", "b", 2 * MIB)
    assert known.expected(description("m", fingerprint="b")) == 2 * MIB


def test_it_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "loads.json"
    first = LoadMemory(path)
    first.save()
    assert not path.exists()  # there is no news
    first.measured("/models/m", "a", 7)
    first.save()
    assert LoadMemory(path).expected(description("m")) == 7
    assert [file.name for file in path.parent.iterdir()] == ["loads.json"]


def test_the_models_that_were_measured_last_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "loads.json"
    known = LoadMemory(path)
    for number in range(MOST_MODELS + 1):
        known.measured(f"/models/{number}", "a", number)
    known.measured("/models/1", "a", 1)
    known.save()
    kept = json.loads(path.read_text())
    assert len(kept) == MOST_MODELS
    assert "/models/0" not in kept
    assert list(kept)[-1] == "/models/1"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"/models/m": 1}', '{"/models/m": ["a", "b"]}', '{"/models/m": ["a", -1]}', "[" * 100_000]
)
def test_a_file_that_is_no_memory_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "loads.json"
    path.write_text(text)
    assert LoadMemory(path).expected(description("m")) == BASE


def test_nothing_is_lost_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    known = LoadMemory(tmp_path / "file" / "loads.json")
    known.measured("/models/m", "a", 7)
    known.save()
    assert known.expected(description("m")) == 7


def test_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_path() == Path("/c/tidepool/loads.json")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/h")
    assert default_path() == Path("/h/.cache/tidepool/loads.json")


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_memory_for_loads_is_a_share_of_what_is_available(tmp_path: Path) -> None:
    assert load_memory(tmp_path) == 0  # nothing is known
    write(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:   1000 kB\nBuffers: 1 kB\n")
    assert load_memory(tmp_path) == int(LOAD_SHARE * 1000 * 1024)
    group = {"memory.max": "max\n", "memory.current": "1000\n"}
    write(tmp_path, **{f"sys__fs__cgroup__{name}": text for name, text in group.items()})
    assert load_memory(tmp_path) == int(LOAD_SHARE * 1000 * 1024)
    write(tmp_path, **{"sys__fs__cgroup__memory.max": "5000\n"})
    assert load_memory(tmp_path) == int(LOAD_SHARE * 4000)
    write(tmp_path, **{"sys__fs__cgroup__memory.max": "10\n"})  # full: one at a time
    assert load_memory(tmp_path) == 1

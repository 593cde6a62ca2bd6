"""A model's file is what it says now, whatever Python has compiled before."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.isolation import import_file


@pytest.fixture
def package() -> Iterator[str]:
    name = "package_of_a_model"
    yield name
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.mark.parametrize("name", ["model.py", "__init__.py"])
def test_a_file_that_changes_twice_in_a_second_is_read_again(
    tmp_path: Path, package: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "compiled"))
    for file in ("model.py", "__init__.py"):
        (tmp_path / file).write_text("factor = 1\n")
    for number in (2, 3):
        (tmp_path / name).write_text(f"factor = {number}\n")
        os.utime(tmp_path / name, (1.7e9, 1.7e9))
        import_file(tmp_path / "model.py", package)
        module = sys.modules[package if name == "__init__.py" else f"{package}.model"]
        assert module.factor == number

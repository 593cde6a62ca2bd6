"""What was checked is checked again where it is loaded."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from workers.errors import BackendError
from workers.integrity import check

MD5 = "MD5:" + hashlib.md5(b"good").hexdigest()


@pytest.fixture(autouse=True)
def _prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", sys.pycache_prefix)


def test_files_that_are_as_they_were_are_loaded_without_bytecode(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"good")
    before = sys.pycache_prefix
    check(tmp_path, 1, {})
    assert sys.pycache_prefix == before
    check(tmp_path, 1, {"a": MD5})
    assert sys.pycache_prefix == os.devnull


def test_files_of_other_versions_are_others_business(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "a").write_bytes(b"bad")
    check(tmp_path, 1, {"2/a": MD5})
    with pytest.raises(BackendError, match="Mismatched MD5 hash for file 2/a, expect: "):
        check(tmp_path, 2, {"2/a": MD5})


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="a cannot be checked: No such file"):
        check(tmp_path, 1, {"a": MD5})

"""Model repositories on disk: which models there are, and when their files have changed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import pbtxt
from configs.errors import ConfigError
from configs.layout import fingerprint, list_models
from configs.proto.schema import message


def test_directories_are_models_and_files_and_hidden_directories_are_not(tmp_path: Path) -> None:
    for name in ("b", "a", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    models = list_models([tmp_path])
    assert models.directories == {name: tmp_path / name for name in ("a", "b", "linked")}
    assert models.errors == {}


def test_a_name_in_two_repositories_is_an_error_of_that_model(tmp_path: Path) -> None:
    for path in ("one/m", "two/m", "two/n"):
        (tmp_path / path).mkdir(parents=True)
    models = list_models([tmp_path / "one", tmp_path / "two"])
    assert list(models.directories) == ["n"]
    assert models.errors["m"] == f"model appears in two or more repositories: {tmp_path}/one/m, {tmp_path}/two/m"


def test_an_entry_without_a_directory_is_an_error_of_that_model(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    entries = {
        name: pbtxt.parse(f'name: "{name}"', message("inference.ModelConfig"), "server.pbtxt") for name in ("m", "n")
    }
    models = list_models([tmp_path], entries)
    assert list(models.directories) == ["m"]
    assert models.errors == {"n": f"server.pbtxt:1:1: there is no directory 'n' in the model repository {tmp_path}"}


def test_a_name_that_is_no_text_is_an_error_of_that_model(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    models = list_models([tmp_path])
    assert models.directories == {}
    assert models.errors == {r"caf\udce9": "the name of a model's directory must be UTF-8"}


def test_a_repository_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        list_models([tmp_path / "none"])


def touch_later(path: Path) -> None:
    path.touch()
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda d: touch_later(d / "model.py"), True),
        (lambda d: (d / "model.py").write_text("x"), True),
        (lambda d: (d / "new.py").touch(), True),
        (lambda d: (d / "model.py").unlink(), True),
        (lambda d: (d / "model.py").rename(d / "other.py"), True),
        (lambda d: (d / "lib/deep.py").write_text("x"), True),
        (lambda d: (d / ".model.py.swp").touch(), False),
        (lambda d: (d / "model.py~").touch(), False),
        (lambda d: (d / "weights.bin.part").touch(), False),
        (lambda d: (d / ".hidden").mkdir(), False),
        (lambda d: (d / "__pycache__").mkdir() or (d / "__pycache__/model.pyc").touch(), False),
        (lambda d: (d / "dangling").symlink_to(d / "nowhere"), False),
    ],
)
def test_the_fingerprint_follows_the_files_that_matter(
    tmp_path: Path, change: Callable[[Path], object], counts: bool
) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("model.py", "lib/deep.py"):
        (tmp_path / name).touch()
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    change(tmp_path)
    assert (fingerprint(tmp_path) != before) is counts


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/back").symlink_to(tmp_path)
    assert fingerprint(tmp_path)

"""Which directory of an archive is the model's, and where archives may lie."""

from pathlib import Path

import pytest

from configs import archive
from configs.archive import model_directory
from configs.errors import ConfigError


def test_the_only_directory_is_the_model_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "hash/model/resnet/1").mkdir(parents=True)
    (tmp_path / "hash/model/.cache").mkdir()
    (tmp_path / "hash/model/notes.txt").write_text("")
    assert model_directory(f"{tmp_path}/hash/model", [tmp_path]) == tmp_path / "hash/model/resnet"
    assert model_directory(f"{tmp_path}/hash/model/resnet", [tmp_path]) == tmp_path / "hash/model/resnet"


def test_an_archive_with_a_configuration_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "hash/model/files").mkdir(parents=True)
    (tmp_path / "hash/model/config.pbtxt").write_text("")
    assert model_directory(f"{tmp_path}/hash/model", [tmp_path]) == tmp_path / "hash/model"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", "failed to register '', repository not found"),
        ("{root}/none", "failed to register '{root}/none', repository not found"),
        ("{root}/two", "an archive holds the directory of one model, '{root}/two' has: a, b"),
        ("{root}/empty", "an archive holds the directory of one model, '{root}/empty' has: none"),
        ("{root}/../outside", "it lies outside"),
        ("{root}/link", "it lies outside"),
        ("{root}/loop", "failed to register '{root}/loop', repository not found"),
        ("{root}/a\0b", "repository not found"),
        ("/proc/self", "it lies outside"),
        ("two", "it lies outside"),
    ],
)
def test_what_is_no_archive(tmp_path: Path, path: str, error: str) -> None:
    root = tmp_path / "root"
    for name in ("root/two/a", "root/two/b", "root/empty", "outside/a/1"):
        (tmp_path / name).mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(ConfigError) as raised:
        model_directory(path.format(root=root), [root])
    assert error.format(root=root) in str(raised.value)


def test_sagemakers_own_place_is_allowed() -> None:
    with pytest.raises(ConfigError, match="not found"):
        model_directory(str(archive.SAGEMAKER / "0123/model"), [])

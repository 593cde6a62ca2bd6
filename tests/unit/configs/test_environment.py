"""What a Python model's configuration and directory say about its environment."""

import os
from pathlib import Path

import pytest

from configs.description import ModelDescription
from configs.environment import find
from configs.errors import ConfigError
from configs.model import describe
from configs.server import ServerConfig


def test_only_python_models_have_one(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").touch()
    assert find(tmp_path, "onnxruntime", {}) is None
    assert find(tmp_path, "python", {}) is not None


def test_a_lock_file_wins_over_a_project_and_that_over_requirements(tmp_path: Path) -> None:
    assert find(tmp_path, "python", {"python_version": "anything, nothing is built"}) is None
    for name in ("requirements.txt", "pyproject.toml", "uv.lock"):
        (tmp_path / name).touch()
        found = find(tmp_path, "python", {"python_version": "3.12"})
        assert found is not None
        assert (found.kind, found.path, found.python) == ("packages", str(tmp_path / name), "3.12")


@pytest.mark.parametrize("version", ["3", "2.7", "3.12; rm", "../python", "3.12/../x", "3.123"])
def test_a_version_is_a_version(tmp_path: Path, version: str) -> None:
    (tmp_path / "requirements.txt").touch()
    with pytest.raises(ConfigError, match=r"must be a version such as 3\.12"):
        find(tmp_path, "python", {"python_version": version})


def test_a_path_may_name_the_models_directory(tmp_path: Path) -> None:
    (tmp_path / "env.tar.gz").touch()
    (tmp_path / "requirements.txt").touch()
    found = find(tmp_path, "python", {"EXECUTION_ENV_PATH": "$$TRITON_MODEL_DIRECTORY/env.tar.gz"})
    assert found is not None
    assert (found.kind, found.path) == ("archive", str(tmp_path / "env.tar.gz"))
    found = find(tmp_path, "python", {"EXECUTION_ENV_PATH": str(tmp_path)})
    assert found is not None
    assert (found.kind, found.path) == ("folder", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^Failed to get the canonical path for /nowhere/x\.$"):
        find(tmp_path, "python", {"EXECUTION_ENV_PATH": "/nowhere/x"})


def test_an_edit_reloads_the_workers_and_travels_to_the_broker(tmp_path: Path) -> None:
    model = tmp_path / "m"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").touch()
    (model / "config.pbtxt").write_text('backend: "python"')

    def described() -> ModelDescription:
        return describe(model, None, ServerConfig(), ())

    found = [described()]
    for moment in (1, 2):
        (model / "requirements.txt").touch()
        os.utime(model / "requirements.txt", (moment, moment))
        found.append(described())
    assert len({one.fingerprint for one in found}) == 3
    assert found[1].environment is not None
    for one in found:
        assert ModelDescription.from_wire(one.to_wire()) == one

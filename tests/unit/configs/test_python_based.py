"""Python-based backends: directories with a model.py, by the name that models give."""

from pathlib import Path

import pytest

from configs.backend_settings import merged, shm_sizes
from configs.environment import find as environment_of
from configs.errors import ConfigError
from configs.model import describe
from configs.python_based import find, names
from configs.server import ServerConfig, load


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Backends `shout` and `_x.y-2`, and what is none; a model.py outside."""
    for name in ("shout", "_x.y-2", "empty"):
        (tmp_path / "backends" / name).mkdir(parents=True)
    for name in ("backends/shout", "backends/_x.y-2", "backends", "."):
        (tmp_path / name / "model.py").touch()
    return tmp_path / "backends"


def write(root: Path, config: str) -> Path:
    directory = root.parent / "models" / "m"
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(config)
    return directory


def test_those_with_a_file_are_there(root: Path) -> None:
    assert names(root) == ("_x.y-2", "shout")
    assert find(root, "shout") == root / "shout"
    assert names(root / "nowhere") == ()


@pytest.mark.parametrize("name", ["", ".", "..", "../backends/shout", "shout/", "/etc", "shout/../..", "s\n", "é"])
def test_names_are_no_paths(root: Path, name: str) -> None:
    assert find(root, name) is None


@pytest.mark.parametrize("more", ["", ' runtime: "model.py"'])
def test_a_model_needs_no_file_of_its_own(root: Path, more: str) -> None:
    described = describe(write(root, f'backend: "shout"{more}'), None, ServerConfig(backend_directory=str(root)), ())
    assert (described.backend, described.platform, described.config["runtime"]) == ("shout", "", "model.py")


def test_the_name_of_a_model_may_name_its_backend(root: Path) -> None:
    (root.parent / "m.shout" / "1").mkdir(parents=True)
    described = describe(root.parent / "m.shout", None, ServerConfig(backend_directory=str(root)), ())
    assert described.backend == "shout"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('backend: "shuot"', "for backend 'shuot', .* python, pytorch, .*_x.y-2, shout; did you mean 'shout'"),
        ('backend: "../shout"', "unable to find backend library for backend '../shout'"),
        ('backend: "shout" runtime: "other.py"', "'runtime' of model 'm' is not built yet"),
        ('backend: "python" runtime: "model.py"', "'runtime' of model 'm' is not built yet"),
    ],
)
def test_what_there_is_not(root: Path, config: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        describe(write(root, config), None, ServerConfig(backend_directory=str(root)), ())


def test_a_change_of_the_backend_is_one_of_its_models(root: Path) -> None:
    model, server = write(root, 'backend: "shout"'), ServerConfig(backend_directory=str(root))
    before = describe(model, None, server, ()).fingerprint
    assert describe(model, None, server, ()).fingerprint == before
    (root / "shout" / "model.py").write_text("x = 1")
    assert describe(model, None, server, ()).fingerprint != before


def test_the_environment_of_the_backend_is_for_models_without_one(root: Path) -> None:
    model, library = write(root, 'backend: "shout"'), root / "shout"
    assert environment_of(model, "shout", {}, library) is None
    (library / "requirements.txt").touch()
    found = environment_of(model, "shout", {}, library)
    assert found is not None
    assert (found.kind, found.path) == ("packages", str(library / "requirements.txt"))
    (library / "pb_exec_env_model.py.tar.gz").touch()
    found = environment_of(model, "shout", {}, library)
    assert found is not None
    assert found.kind == "archive"
    (model / "requirements.txt").touch()
    found = environment_of(model, "shout", {}, library)
    assert found is not None
    assert found.path == str(model / "requirements.txt")


def test_settings_are_pythons_unless_the_backend_has_its_own() -> None:
    settings = {
        "": {"a": "1", "b": "1"},
        "python": {"b": "2", "c": "2", "shm-default-size": "2097152"},
        "x": {"c": "3"},
    }
    assert merged(settings, "x") == {"a": "1", "b": "2", "c": "3", "shm-default-size": "2097152"}
    assert merged(settings, "pytorch") == {"a": "1", "b": "1"}
    assert shm_sizes(settings, "x")[0] == 2097152
    assert shm_sizes(settings, "identity")[0] == 64 << 20


def test_the_directory_is_relative_to_the_file_or_to_the_working_directory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "models").mkdir()
    file = root.parent / "server.pbtxt"
    file.write_text('backend_directory: "backends"')
    monkeypatch.chdir("/")
    config = load([f"--config={file}"])
    assert (config.backends, config.warnings) == (root, ())
    assert load([f"--config={file}", "--backend-directory=tmp"]).backends == Path("/tmp")
    (warning,) = load([f"--config={file}", "--backend-directory=/none"]).warnings
    assert "'/none' is not a directory" in warning
    (warning,) = load([f"--config={file}", "--backend-config=shuot,shm-default-size=2097152"]).warnings
    assert "there is no backend 'shuot'" in warning
    assert not load([f"--config={file}", "--backend-config=shout,shm-default-size=2097152"]).warnings

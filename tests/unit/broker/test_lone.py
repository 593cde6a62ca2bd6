"""Model files without a repository."""

from pathlib import Path

import pytest

from broker.lone import models, repository
from broker.messages import ModelDescribed, ModelRemoved
from broker.watcher import Watcher
from configs.errors import ConfigError
from configs.server import ServerConfig, load


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "resnet").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "resnet"


def touch(place: Path, *names: str) -> None:
    for name in names:
        (place / name).touch()


def served(found: Path) -> dict[str, set[str]]:
    return {model.name: {file.name for file in (model / "1").iterdir()} for model in found.iterdir()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["model.onnx"], {"resnet": {"model.onnx"}}),
        (["bert.onnx", "bert.onnx.data", "bert_labels.txt", "README.md"], {
            "bert": {"model.onnx", "bert.onnx.data", "bert_labels.txt"}
        }),
        (["a.pt", "b.plan", "a_weights.bin"], {"a": {"model.pt", "a_weights.bin"}, "b": {"model.plan"}}),
        (["x.onnx", "x.pt"], {"x": {"model.onnx"}, "x.pt": {"model.pt"}}),
    ],
)  # fmt: skip
def test_files_are_models_by_their_names(place: Path, files: list[str], expected: dict[str, set[str]]) -> None:
    touch(place, *files)
    found = repository(place, place.parent / "scratch")
    assert served(found) == expected
    for model, names in expected.items():
        assert all((found / model / "1" / name).resolve().parent == place for name in names)


def test_a_path_may_be_the_file(place: Path) -> None:
    touch(place, "model.onnx", "other.onnx")
    (place / "more").mkdir()
    scratch = place.parent / "scratch"
    assert served(repository(place / "model.onnx", scratch)) == {"resnet": {"model.onnx"}}
    assert served(repository(place / "other.onnx", scratch)) == {"other": {"model.onnx"}}


@pytest.mark.parametrize("names", [(), ("train.py", "weights.bin", ".hidden.onnx", "config.pbtxt")])
def test_a_directory_without_model_files_is_a_repository(place: Path, names: tuple[str, ...]) -> None:
    touch(place, *names)
    assert repository(place, place.parent / "scratch") == place


def test_a_directory_with_models_is_a_repository_whatever_else_lies_in_it(place: Path) -> None:
    touch(place, "stray.pt")
    (place / "model").mkdir()
    assert repository(place, place.parent / "scratch") == place
    (place / "model").rename(place / ".git")
    assert repository(place, place.parent / "scratch") != place


def test_a_path_that_cannot_be_read_is_left_to_who_reads_repositories(place: Path) -> None:
    assert repository(place / "gone.onnx", place.parent / "scratch") == place / "gone.onnx"


def test_links_follow_the_files(place: Path) -> None:
    touch(place, "a.onnx", "a.onnx.data", "b.onnx")
    scratch = place.parent / "scratch"
    found = repository(place, scratch)
    (place / "a.onnx.data").unlink()
    (place / "b.onnx").rename(place / "c.onnx")
    assert repository(place, scratch) == found
    assert served(found) == {"a": {"model.onnx"}, "c": {"model.onnx"}}


def test_names_do_not_depend_on_what_is_beside() -> None:
    assert models(Path("/d"), ["a.pt"], ["a.pt", "ab.txt"]) == {"a": {"model.pt": Path("/d/a.pt")}}
    assert models(Path("/"), ["model.pt"], []) == {"model": {"model.pt": Path("/model.pt")}}


def test_the_repository_process_describes_them(place: Path) -> None:
    touch(place, "bert.onnx")
    config = ServerConfig(model_repository=(place,), model_control_mode="poll")
    watcher = Watcher(config, (), place.parent / "scratch")
    (described,) = [m.description for m in watcher.scan(is_first=True) if isinstance(m, ModelDescribed)]
    assert (described["name"], described["backend"], described["is_inferred"]) == ("bert", "onnxruntime", True)
    watcher.release(described["path"])
    assert Path(described["path"]).is_dir()
    (place / "bert.onnx").rename(place / "roberta.onnx")
    found = [*watcher.scan(), *[message for _ in range(5) for message in watcher.look()]]
    assert [m.model for m in found if isinstance(m, ModelRemoved)] == ["bert"]
    assert [m.description["name"] for m in found if isinstance(m, ModelDescribed)] == ["roberta"]


def test_the_flag_takes_a_model_file_and_no_other(place: Path) -> None:
    touch(place, "bert.onnx", "notes.txt")
    assert load([f"--model-repository={place / 'bert.onnx'}"]).model_repository == (place / "bert.onnx",)
    with pytest.raises(ConfigError, match=r"notes\.txt' is not a directory"):
        load([f"--model-repository={place / 'notes.txt'}"])

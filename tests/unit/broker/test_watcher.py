"""What the repository process finds, and what load requests make it look into."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from broker.messages import (
    DescribeModel,
    Log,
    Message,
    ModelConsidered,
    ModelDescribed,
    ModelRejected,
    ModelRemoved,
    RepositoryListed,
    WatchRepository,
)
from broker.watcher import RESTLESS_LOOKS, STILL_LOOKS, Watcher
from configs import server
from configs.server import ServerConfig

CONFIG = """
backend: "identity"
input { name: "IN" data_type: TYPE_FP32 dims: -1 }
output { name: "OUT" data_type: TYPE_FP32 dims: -1 }
"""
JSON = """{"backend": "identity", "max_batch_size": 4, "parameters": {"a": {"string_value": "b"}},
           "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]}],
           "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": ["-1"]}]}"""


class Repository:
    """A repository on disk, and the watcher over it."""

    def __init__(self, directory: Path, mode: str, more: tuple[str, ...] = (), **settings: Any) -> None:
        """`more` are further repositories."""
        self.path = directory / "models"
        paths = (self.path, *(directory / name for name in more))
        for path in paths:
            path.mkdir()
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        config = ServerConfig(model_repository=paths, model_control_mode=mode, **settings)
        self.watcher = Watcher(config, (), self.scratch)

    def write(self, name: str, config: str = CONFIG) -> Path:
        directory = self.path / name
        (directory / "1").mkdir(parents=True, exist_ok=True)
        (directory / "config.pbtxt").write_text(config)
        return directory

    def looks(self) -> list[tuple[str, str]]:
        """What is found until what has changed has been still."""
        return short([message for _ in range(1 + STILL_LOOKS) for message in self.watcher.look()])

    def load(self, name: str, config: str = "", **files: bytes) -> list[Message]:
        paths = {path.replace("__", "/").replace("_py", ".py"): content for path, content in files.items()}
        return self.watcher.consider(DescribeModel(name, config, paths))

    def unpacked(self) -> list[Path]:
        """The files of load requests that are kept."""
        return [path.relative_to(self.scratch) for path in self.scratch.rglob("*") if path.is_file()]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path, "explicit")


def short(messages: list[Message]) -> list[tuple[str, str]]:
    """Messages by kind and model."""
    found = []
    for message in messages:
        match message:
            case ModelDescribed(description):
                found.append(("described", description["name"]))
            case ModelRejected(model) | ModelRemoved(model):
                found.append((type(message).__name__.removeprefix("Model").lower(), model))
            case ModelConsidered(model, error):
                found.append(("failed" if error else "considered", model))
            case RepositoryListed(models):
                found.append(("listed", " ".join(models)))
            case Log(level, _):
                found.append(("log", level))
            case _:
                raise AssertionError(message)
    return found


def description(messages: list[Message]) -> dict[str, Any]:
    (found,) = [message.description for message in messages if isinstance(message, ModelDescribed)]
    return found


# ----------------------------------------------------------------------------------------------- modes


def test_mode_none_describes_all_at_the_start_and_then_only_edits(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "none")
    a = repository.write("a")
    assert short(repository.watcher.scan(is_first=True)) == [("listed", "a"), ("described", "a")]
    repository.write("b")
    assert short(repository.watcher.look()) == [("listed", "a b")]
    (a / "config.pbtxt").write_text(CONFIG + "max_batch_size: 2")
    assert repository.watcher.look() == [], "it may still be written"
    assert short(repository.watcher.look()) == [("described", "a")]


def test_mode_explicit_describes_what_is_to_be_loaded_at_the_start(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "explicit", load_model=("b", "nope"))
    repository.write("a")
    repository.write("b")
    found = repository.watcher.scan(is_first=True)
    assert short(found) == [("listed", "a b"), ("rejected", "nope"), ("described", "b")]
    assert found[1] == ModelRejected("nope", "there is no directory 'nope' in the model repository")


def test_a_star_is_every_model(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "explicit", load_model=("*",))
    repository.write("a")
    repository.write("b")
    assert short(repository.watcher.scan(is_first=True))[1:] == [("described", "a"), ("described", "b")]


def ensemble(*models: str) -> str:
    """A configuration with these models one after the other."""
    tensors = ["A", *[f"t{number}" for number in range(1, len(models))], "Z"]
    steps = " ".join(
        f'step {{ model_name: "{model}" model_version: -1 input_map {{ key: "IN" value: "{tensors[i]}" }} '
        f'output_map {{ key: "OUT" value: "{tensors[i + 1]}" }} }}'
        for i, model in enumerate(models)
    )
    io = [f'{field} {{ name: "{name}" data_type: TYPE_FP32 dims: [ -1 ] }}' for field, name in IO]
    return f'platform: "ensemble" {" ".join(io)} ensemble_scheduling {{ {steps} }}'


IO = (("input", "A"), ("output", "Z"))


def steps_of(messages: list[Message], name: str) -> list[str]:
    (found,) = [m.description for m in messages if isinstance(m, ModelDescribed) and m.description["name"] == name]
    return [step["model"] for step in found["steps"]]


def test_a_step_means_the_model_of_its_own_namespace_first_and_else_the_only_one(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "poll", model_namespacing=True, more=("other", "third"))
    repository.write("e", ensemble("same", "alone", "strange"))
    repository.write("same")
    for path in ("other/same", "other/alone", "other/strange", "third/strange"):
        repository.write(f"../{path}")
    found = repository.watcher.scan(is_first=True)
    assert steps_of(found, "e") == [f"{repository.path}::same", "alone", "strange"]
    repository.write("alone")
    assert steps_of(repository.watcher.look(), "e") == [f"{repository.path}::{name}" for name in ("same", "alone")] + [
        "strange"
    ]


def test_a_load_of_a_name_in_several_namespaces_is_one_of_all_or_none(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "explicit", model_namespacing=True, more=("other",))
    one, two = repository.write("same"), repository.write("../other/same")
    repository.watcher.look()
    described = [("described", f"{directory.parent.resolve()}::same") for directory in (one, two)]
    assert short(repository.load("same")) == [*described, ("considered", "same")]
    (two / "config.pbtxt").write_text("nonsense")
    assert short(repository.load("same")) == [("log", "E"), ("failed", "same")]


def test_ensembles_are_described_after_their_models(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "none")
    repository.write("a", ensemble("b", "c"))
    for name in ("b", "c"):
        repository.write(name)
    found = short(repository.watcher.scan(is_first=True))[1:]
    assert found == [("described", "b"), ("described", "c"), ("described", "a")]


def test_mode_explicit_loads_the_models_of_an_ensemble_with_it(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "explicit", load_model=("top",))
    repository.write("top", ensemble("below", "c"))
    repository.write("below", ensemble("a", "missing", "top"))
    for name in ("a", "b", "c"):
        repository.write(name)
    found = short(repository.watcher.scan(is_first=True))[1:]
    assert sorted(found) == [("described", name) for name in ("a", "below", "c", "top")]
    repository.watcher.forget("a")
    assert short(repository.load("top")) == [
        ("described", "a"),
        ("described", "below"),
        ("described", "c"),
        ("described", "top"),
        ("considered", "top"),
    ]


def test_a_model_of_an_ensemble_that_is_wrong_is_rejected_by_itself(repository: Repository) -> None:
    repository.write("top", ensemble("a", "b"))
    repository.write("a", "nonsense")
    repository.write("b")
    assert short(repository.load("top")) == [
        ("rejected", "a"),
        ("described", "b"),
        ("described", "top"),
        ("considered", "top"),
    ]


def test_an_ensemble_that_is_edited_brings_its_new_models(repository: Repository) -> None:
    directory = repository.write("top", ensemble("a"))
    repository.write("a")
    repository.write("b")
    repository.load("top")
    (directory / "config.pbtxt").write_text(ensemble("a", "b"))
    repository.watcher.look()
    assert short(repository.watcher.look()) == [("described", "b"), ("described", "top")]


def test_mode_poll_finds_what_is_added_changed_and_removed(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "poll")
    a = repository.write("a")
    b = repository.write("b")
    repository.watcher.scan(is_first=True)
    assert repository.watcher.scan() == []
    (a / "1" / "weights").write_bytes(b"new")
    shutil.rmtree(b)
    repository.write("c")
    assert short(repository.watcher.scan()) == [("listed", "a c")]
    assert sorted(repository.looks()) == [("described", "a"), ("described", "c"), ("removed", "b")]
    assert repository.watcher.scan() == []
    repository.write("c", "nonsense")
    assert repository.watcher.scan() == []
    assert repository.looks() == [("rejected", "c")]
    assert repository.watcher.scan() == [], "it is said once"
    repository.write("c")
    assert repository.watcher.scan() == []
    assert repository.looks() == [("described", "c")]


@pytest.fixture
def polled(tmp_path: Path) -> Repository:
    """Mode poll, with the models `a` and `b`."""
    repository = Repository(tmp_path, "poll")
    for name in ("a", "b"):
        repository.write(name)
    repository.watcher.scan(is_first=True)
    return repository


def test_what_happens_in_a_model_is_seen_without_a_scan(polled: Repository) -> None:
    (polled.path / "a" / "1" / "weights").write_bytes(b"new")
    assert polled.looks() == []
    polled.watcher.touch([polled.path / "a", polled.path / "nothing"])
    assert polled.looks() == [("described", "a")]
    shutil.rmtree(polled.path / "a")
    polled.write("c")
    polled.watcher.touch([polled.path / "a", polled.path / "c"])
    assert sorted(polled.looks()) == [("described", "c"), ("listed", "b c"), ("removed", "a")]


def test_a_version_counts_when_it_has_been_written(polled: Repository) -> None:
    version = polled.path / "a" / "2"
    version.mkdir()
    for size in range(5):
        (version / "weights").write_bytes(b"x" * size)
        polled.watcher.touch([polled.path / "a"])
        assert polled.watcher.look() == [], "it grows"
        assert polled.watcher.look() == [], "it may grow yet"
    (found,) = polled.watcher.look()
    assert isinstance(found, ModelDescribed)
    assert found.description["versions"] == (2,)


def test_a_model_that_keeps_changing_is_told_once(polled: Repository) -> None:
    found = []
    for number in range(2 * RESTLESS_LOOKS):
        (polled.path / "a" / "1" / "log").write_text(str(number))
        polled.watcher.touch([polled.path / "a"])
        found += polled.watcher.look()
    assert found == [Log("W", "model 'a' keeps changing: only its configuration is heeded")]
    assert polled.looks() == [("described", "a")]


def test_an_edit_of_a_model_that_writes_into_its_directory_is_heeded_in_the_end(repository: Repository) -> None:
    directory = repository.write("a")
    repository.load("a")
    repository.watcher.look()
    (directory / "config.pbtxt").write_text(CONFIG + "max_batch_size: 2")
    found = []
    for number in range(RESTLESS_LOOKS + 10):
        (directory / "1" / "log").write_text(str(number))
        found += repository.watcher.look()
    assert short(found) == [("log", "W"), ("described", "a")]


def test_a_model_that_is_replaced_is_never_gone(polled: Repository) -> None:
    model = polled.path / "a"
    model.rename(polled.path / ".old")
    polled.watcher.touch([model])
    assert short([*polled.watcher.look(), *polled.watcher.look()]) == [("listed", "b")]
    polled.write("a", CONFIG + "max_batch_size: 2")
    assert polled.looks() == [("listed", "a b"), ("described", "a")]


@pytest.mark.parametrize(
    "name",
    [
        ".config.pbtxt.swp",
        "config.pbtxt~",
        "4913",
        ".git/index",
        "1/__pycache__/model.pyc",
        "1/.model.py.Xy1",
        "1/w.tmp",
    ],
)
def test_what_editors_and_python_leave_is_no_change(polled: Repository, name: str) -> None:
    file = polled.path / "a" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("x")
    polled.watcher.touch([polled.path / "a"])
    assert polled.looks() == []
    assert polled.watcher.scan() == []


def test_an_edit_takes_no_half_written_version_along(repository: Repository) -> None:
    directory = repository.write("a")
    repository.load("a")
    repository.watcher.look()
    (directory / "2").mkdir()
    (directory / "2" / "weights").write_bytes(b"1")
    (directory / "config.pbtxt").write_text(CONFIG + "max_batch_size: 2")
    for size in (2, 3, 4):
        assert repository.watcher.look() == []
        (directory / "2" / "weights").write_bytes(b"x" * size)
    assert repository.looks() == [("described", "a")]


def test_what_a_request_brings_is_not_watched(repository: Repository) -> None:
    directory = repository.write("a")
    repository.load("a")
    repository.load("a", JSON)
    repository.watcher.look()
    (directory / "config.pbtxt").write_text(CONFIG + "max_batch_size: 2")
    assert repository.looks() == []


# ----------------------------------------------------------------------------------------------- load requests


def test_a_load_describes_the_model_each_time(repository: Repository) -> None:
    repository.write("a")
    assert short(repository.watcher.scan(is_first=True)) == [("listed", "a")]
    for _ in range(2):
        assert short(repository.load("a")) == [("described", "a"), ("considered", "a")]


def test_a_load_that_fails_is_not_held_against_a_model(repository: Repository) -> None:
    a = repository.write("a", "nonsense")
    assert short(repository.load("a")) == [("log", "E"), ("failed", "a")]
    assert short(repository.load("nope")) == [("log", "E"), ("failed", "nope")]
    a.joinpath("config.pbtxt").write_text(CONFIG)
    repository.watcher.look()
    assert short(repository.watcher.look()) == [("listed", "a")] or repository.watcher.look() == []
    assert short(repository.load("a")) == [("described", "a"), ("considered", "a")]


def test_a_configuration_in_the_request_replaces_the_file_until_the_next_load(repository: Repository) -> None:
    a = repository.write("a")
    repository.load("a")
    found = description(repository.load("a", JSON))
    assert (found["max_batch_size"], found["path"], found["parameters"]) == (4, str(a), {"a": "b"})
    a.joinpath("config.pbtxt").write_text(CONFIG + "max_batch_size: 2")
    assert [repository.watcher.look() for _ in range(3)][1:] == [[], []], "an edit of a file that is not in force"
    assert description(repository.load("a"))["max_batch_size"] == 2


def test_files_in_the_request_replace_the_directory_until_nothing_is_served_from_them(repository: Repository) -> None:
    first = description(repository.load("made_up", JSON, **{"1__model_py": b"one", "1__data__x": b""}))
    assert Path(first["path"], "1", "model.py").read_bytes() == b"one"
    assert Path(first["path"]).name == "made_up"
    second = description(repository.load("made_up", JSON, **{"1__model_py": b"two"}))
    assert second["path"] != first["path"]
    assert Path(first["path"]).exists(), "the old may still be served, and its workers start again"
    repository.watcher.release(first["path"])
    assert len(repository.unpacked()) == 1
    repository.watcher.forget("made_up")
    assert len(repository.unpacked()) == 1
    repository.watcher.release(second["path"])
    assert list(repository.scratch.iterdir()) == []


def test_the_repositorys_own_directories_are_never_removed(repository: Repository) -> None:
    a = repository.write("a")
    repository.watcher.release(str(a))
    repository.watcher.release(str(repository.scratch))
    repository.watcher.release(str(repository.scratch / "x"))
    assert a.exists()
    assert repository.scratch.exists()


@pytest.mark.parametrize(
    ("config", "path", "error"),
    [
        ("", "1/model.py", "Load parameter 'config' must be specified for model file override"),
        ("hello", "1/model.py", "Invalid config override for model 'a': "),
        ('{"colour": "blue"}', "1/model.py", "colour"),
        (
            JSON,
            "../x",
            "Invalid file parameter 'file:../x' with normalized path '../x' must stay within model directory.",
        ),
        (JSON, "/etc/x", "must stay within model directory."),
        (JSON, "x" * 300, "name too long"),
        (JSON.replace("identity", "nothing"), "1/model.py", "nothing"),
    ],
)
def test_what_is_wrong_with_a_load_is_said_and_leaves_nothing(
    repository: Repository, config: str, path: str, error: str
) -> None:
    log, considered = repository.watcher.consider(DescribeModel("a", config, {path: b"x"}))
    assert isinstance(log, Log)
    assert isinstance(considered, ModelConsidered)
    assert error in considered.error
    assert list(repository.scratch.iterdir()) == []


def test_where_only_what_is_signed_is_loaded_a_request_can_bring_nothing(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "explicit", model_signature_key="key.pem")
    repository.write("a")
    found = repository.load("a", JSON)
    assert short(found) == [("log", "E"), ("failed", "a")]
    assert isinstance(found[1], ModelConsidered)
    assert "only what is signed is loaded" in found[1].error


def test_an_unloaded_model_is_not_looked_after(repository: Repository) -> None:
    a = repository.write("a")
    repository.load("a")
    repository.watcher.forget("a")
    repository.watcher.look()
    a.joinpath("config.pbtxt").write_text(CONFIG + "max_batch_size: 2")
    assert [repository.watcher.look() for _ in range(3)] == [[], [], []]


def test_a_repository_that_cannot_be_read_is_an_error_of_the_load(repository: Repository) -> None:
    repository.path.rmdir()
    _, considered = repository.load("a")
    assert isinstance(considered, ModelConsidered)
    assert "cannot be read" in considered.error
    _, considered = repository.load("a", JSON)
    assert isinstance(considered, ModelConsidered)
    assert "cannot be read" in considered.error


# ----------------------------------------------------------------------------------------------- server.pbtxt


class Configured:
    """A repository with a server.pbtxt whose entries configure it."""

    def __init__(self, directory: Path, *entries: str) -> None:
        self.path = directory / "model_repository"
        self.file = directory / "server.pbtxt"
        for name in ("a", "b"):
            (self.path / name / "1").mkdir(parents=True)
            (self.path / name / "config.pbtxt").write_text(CONFIG)
        self.write(*entries)
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        self.watcher = Watcher(server.load([f"--config={self.file}"]), (), self.scratch)

    def write(self, *entries: str, more: str = "") -> None:
        text = "".join(f"model_config_list {{ config {{ {entry} }} }}\n" for entry in entries)
        self.file.write_text(text + more)

    def look(self) -> list[Message]:
        """An edit counts when the file has been still for one look."""
        return self.watcher.look() or self.watcher.look()


ONE, TWO = ('name: "a" instance_group { count: 1 }', 'name: "a" instance_group { count: 2 }')


def counts(messages: list[Message]) -> list[tuple[str, int]]:
    return [(m.description["name"], len(m.description["instances"])) for m in messages if isinstance(m, ModelDescribed)]


def test_an_edited_entry_changes_its_model_and_no_other(tmp_path: Path) -> None:
    repository = Configured(tmp_path, ONE)
    assert counts(repository.watcher.scan(is_first=True)) == [("a", 1), ("b", 1)]
    assert repository.look() == []
    repository.write(TWO)
    assert repository.watcher.look() == [], "it may still be written"
    assert counts(repository.watcher.look()) == [("a", 2)]
    repository.write()
    assert counts(repository.look()) == [("a", 1)], "config.pbtxt counts again"


def test_an_edit_during_the_start_is_noticed(tmp_path: Path) -> None:
    repository = Configured(tmp_path, ONE)
    repository.write(TWO)
    repository.watcher.scan(is_first=True)
    assert counts(repository.look()) == [("a", 2)]


@pytest.mark.parametrize(
    "text",
    ["model_config_list {", 'model_config_list { config { name: "a" instance_group { count: -1 } } nonsense: 1 }'],
)
def test_a_broken_file_changes_nothing_and_is_said_once(tmp_path: Path, text: str) -> None:
    repository = Configured(tmp_path, ONE)
    repository.watcher.scan(is_first=True)
    repository.file.write_text(text)
    (message,) = repository.look()
    assert isinstance(message, Log)
    assert message.level == "E"
    assert message.text.startswith(str(repository.file.name)) or str(repository.file) in message.text
    assert message.text.endswith("; nothing was changed")
    assert repository.look() == []
    repository.write(TWO)
    assert counts(repository.look()) == [("a", 2)]


def test_a_broken_entry_is_an_error_of_its_model_and_the_old_one_stays(tmp_path: Path) -> None:
    repository = Configured(tmp_path, ONE)
    repository.watcher.scan(is_first=True)
    repository.write('name: "a" instance_group { count: -1 }')
    assert short(repository.look()) == [("rejected", "a")]
    repository.write(ONE)
    assert short(repository.look()) == [("described", "a")], "so that the error is forgotten"


def test_an_entry_brings_a_new_model_and_takes_away_one_that_is_not_there(tmp_path: Path) -> None:
    repository = Configured(tmp_path, ONE, 'name: "ghost"')
    assert ("rejected", "ghost") in short(repository.watcher.scan(is_first=True))
    (repository.path / "c" / "1").mkdir(parents=True)
    (repository.path / "c" / "config.pbtxt").write_text(CONFIG)
    repository.write(ONE, 'name: "c" instance_group { count: 3 }')
    found = repository.look() + repository.look()
    assert counts(found) == [("c", 3)]
    assert ("removed", "ghost") in short(found)


def test_other_settings_need_a_restart(tmp_path: Path) -> None:
    repository = Configured(tmp_path, ONE)
    repository.watcher.scan(is_first=True)
    repository.write(TWO, more="exit_timeout_secs: 3\n")
    found = repository.look()
    assert [message.text for message in found if isinstance(message, Log)] == [
        f"{repository.file}: 'exit_timeout_secs' has changed: that needs a restart"
    ]
    assert counts(found) == [("a", 2)], "the entries apply"


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    repository = Configured(tmp_path, TWO)
    repository.watcher.scan(is_first=True)
    repository.file.unlink()
    (message,) = repository.look()
    assert isinstance(message, Log)
    assert message.text.endswith("; nothing was changed")
    repository.write(ONE)
    assert counts(repository.look()) == [("a", 1)]


def test_one_that_takes_over_serves_what_clients_wanted_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "explicit", load_model=("a",))
    for name in ("a", "b", "c"):
        repository.write(name)
    repository.watcher.take_over(WatchRepository(False, ("b",), ("c",)))
    assert short(repository.watcher.scan(is_first=True)) == [("listed", "a b c"), ("described", "b")]
    edited = CONFIG + "max_batch_size: 4"
    for name in ("a", "b", "c"):
        repository.write(name, edited)
    repository.watcher.look()
    assert short(repository.watcher.look()) == [("described", "b")]


def test_the_first_serves_the_models_of_the_start(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "explicit", load_model=("a",))
    repository.write("a")
    repository.watcher.take_over(WatchRepository(True, (), ()))
    assert ("described", "a") in short(repository.watcher.scan(is_first=True))

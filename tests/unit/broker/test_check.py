"""`python -m broker check` and `models`: what is wrong with a repository, all of it, without a server."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker import check
from tests.support.repository import tensor, write_echo, write_identity, write_model
from tests.unit.configs.test_broken_variants import WORKING

ROOT = Path(__file__).parents[3]
IO = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')} ]\n"
STEPS = """platform: "ensemble"
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }} ]
ensemble_scheduling {{ step [ {{ model_name: "{model}" model_version: -1
  input_map {{ key: "{input}" value: "X" }} output_map {{ key: "OUT" value: "Y" }} }} ] }}
"""

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, `models` in the working directory."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "models"
    directory.mkdir()
    return directory


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit status and the lines of a command."""

    def run(*words: str, lacking: dict[str, str] | None = None) -> tuple[int, list[str]]:
        status = check.main(words, lambda: lacking or {})
        return status, capsys.readouterr().out.splitlines()

    return run


def ensemble(model: str, input: str = "IN") -> str:
    return STEPS.format(model=model, input=input)


def test_nothing_is_wrong_with_the_demonstration(run: Run) -> None:
    for argument in ("examples/model_repository", "configs/server.pbtxt"):
        assert run("check", str(ROOT / argument)) == (0, ["4 models, no errors, no warnings"])


def test_everything_that_is_wrong_is_said_at_once_with_its_place(run: Run, repository: Path) -> None:
    write_identity(repository, "a_good")
    write_model(repository, "b_typo", f'backend: "identity"\n{IO}max_bach_size: 8\ninstance_grup: [ ]\n')
    write_model(repository, "c_value", f'backend: "identity"\n{IO}max_batch_size: "two"\n')
    write_model(repository, "d_fields", 'backend: "identity"\nmax_batch_size: -1\ninput { name: "A" dims: [ 1 ] }\n')
    write_model(repository, "e_file", f'backend: "python"\n{IO}')
    write_model(repository, "f_versions", f'backend: "identity"\n{IO}version_policy {{ specific {{ versions: 3 }} }}')
    write_model(repository, "g_backend", f'backend: "dali"\n{IO}max_batch_size: -3\n')
    write_model(repository, "h_unbuilt", f'backend: "identity"\n{IO}instance_group {{ passive: true }}\n')
    write_model(repository, "i_parts", ensemble("nothing"))
    write_model(repository, "j_mapping", ensemble("a_good", "NO"))
    write_model(repository, "k_of_bad", ensemble("e_file"))
    write_model(repository, "l_bracket", 'backend: "identity"\ninput [ { name: "A"\n')
    write_model(repository, "m_name", 'name: "other"\n')
    status, lines = run("check", "models")
    assert status == 1
    expected = [
        "models/b_typo/config.pbtxt:4:1: error: unknown field 'max_bach_size' in ModelConfig; did you mean",
        "models/b_typo/config.pbtxt:5:1: error: unknown field 'instance_grup' in ModelConfig; did you mean",
        "models/c_value/config.pbtxt:4:17: error: expected an integer for 'max_batch_size', got \"two\"",
        "models/d_fields/config.pbtxt:2:1: error: 'max_batch_size' must be non-negative value for d_fields",
        "models/d_fields/config.pbtxt:3:7: error: model input 'A' must specify 'data_type' for d_fields",
        f"models/e_file: error: version 1 of model 'e_file' lacks its file '{repository}/e_file/1/model.py'",
        "models/f_versions: error: at least one version must be available under the version policy",
        "models/g_backend/config.pbtxt:4:1: error: 'max_batch_size' must be non-negative value for g_backend",
        "models/g_backend/config.pbtxt:1:1: error: unable to find backend library for backend 'dali'",
        "models/h_unbuilt/config.pbtxt:4:18: error: 'passive' of model 'h_unbuilt' is not built yet",
        "models/i_parts: error: ensemble i_parts contains models that are not available or ambiguous: nothing",
        "models/j_mapping: error: in ensemble j_mapping, ensemble tensor X is mapping to non-existing input NO",
        "models/k_of_bad: error: ensemble 'k_of_bad' depends on 'e_file' which is not valid. Model 'e_file' failed",
        "models/l_bracket/config.pbtxt:3:1: error: the file ends, but the bracket opened at line 2, column 9",
        "models/m_name/config.pbtxt:1:1: error: unexpected directory name 'm_name' for model 'other'",
        "13 models, 15 errors, no warnings",
    ]
    assert_begin(lines, expected)


def assert_begin(lines: Sequence[str], expected: Sequence[str]) -> None:
    """Each line begins as expected, after what brackets there may be."""
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start), lines


@pytest.mark.parametrize(
    ("good", "broken", "start"),
    [
        ("max_batch_size", "max_bach_size", "server.pbtxt:2:53: error: unknown field 'max_bach_size'"),
        ("model_config_list", "model_config_lst", "server.pbtxt:1:1: error: unknown field 'model_config_lst'"),
        ("count: 2", 'count: "two"', "server.pbtxt:3:34: error: expected an integer for 'count'"),
        ("count: 2", "count: -2", "server.pbtxt:3:25: error: instance group my_resnet_0 of model my_resnet has count"),
        ("KIND_CPU", "KIND_CUP", "server.pbtxt:3:42: error: unknown value 'KIND_CUP'"),
        ("KIND_CPU", "KIND_GPU", "server.pbtxt:3:25: error: instance group my_resnet_0 of model my_resnet has kind"),
        ('platform: "pytorch"', 'backend: "pytorhc"', "server.pbtxt:2:33: error: unable to find backend library"),
        ("my_resnet", "your_resnet", "server.pbtxt:2:15: error: there is no directory 'your_resnet'"),
        ('name: "my_resnet"', "", "server.pbtxt:2:13: error: an entry of model_config_list must have a 'name'"),
        ("4294967296", "4 GB", "error: backend_config: python,shm-default-size is '4 GB', expected a number of bytes"),
    ],
)
def test_slips_in_server_pbtxt(run: Run, repository: Path, good: str, broken: str, start: str) -> None:
    (repository / "my_resnet/1").mkdir(parents=True)
    (repository / "my_resnet/1/model.pt").touch()
    Path("server.pbtxt").write_text(WORKING)
    assert run("check", "server.pbtxt")[0] == 0
    Path("server.pbtxt").write_text(WORKING.replace(good, broken, 1))
    status, lines = run("check", "server.pbtxt")
    assert status in {1, check.UNUSABLE}
    assert lines[0].startswith(start)


def test_flags_count_as_those_of_the_server(run: Run, repository: Path) -> None:
    (repository / "no_config" / "1").mkdir(parents=True)
    (repository / "no_config/1/model.py").touch()
    assert run("check", "models")[0] == 0
    status, lines = run("check", "--disable-auto-complete-config", "models")
    assert status == 1
    assert lines[0] == "models/no_config: error: model configuration is not provided for model 'no_config'"
    assert run("check", "models", "--model-control-mode", "explicit", "--load-model=nope")[1][0] == (
        "error: there is no directory 'nope' in the model repository"
    )


@pytest.mark.parametrize("words", [["nowhere"], ["--no-such-flag=1"], []])
def test_nothing_to_look_at_is_another_status(run: Run, repository: Path, words: list[str]) -> None:
    repository.rmdir()
    assert run("check", *words)[0] == check.UNUSABLE


def test_a_backend_without_its_package_says_what_to_install(run: Run, repository: Path) -> None:
    write_echo(repository, "echo")
    assert run("check", "models", lacking={"python": "needs it"})[1][0] == "models/echo: error: needs it"


def test_warnings_are_no_errors(run: Run, repository: Path) -> None:
    write_identity(repository, "m", "optimization { priority: PRIORITY_MAX }")
    assert run("check", "models") == (
        0,
        [
            "models/m/config.pbtxt:4:1: warning: 'optimization' of model 'm' has no effect here",
            "1 model, no errors, 1 warning",
        ],
    )


def test_an_ensemble_of_models_that_only_say_themselves_what_they_take_is_believed(run: Run, repository: Path) -> None:
    write_model(repository, "auto", 'backend: "python"', "echo")
    write_model(repository, "outer", ensemble("inner").replace('"OUT"', '"Y"').replace('"IN"', '"X"'))
    write_model(repository, "inner", ensemble("auto"))
    assert run("check", "models") == (0, ["3 models, no errors, no warnings"])


def test_under_namespaces_a_step_means_the_model_beside_it(run: Run, repository: Path) -> None:
    for name in ("models", "others"):
        write_identity(Path(name), "part")
        write_model(Path(name), f"whole_of_{name}", ensemble("part"))
    flags = ("--model-namespacing=true", "--model-repository=others")
    assert run("check", "models", *flags) == (0, ["4 models, no errors, no warnings"])
    assert run("check", "models", flags[1])[0] == 1


def test_a_model_file_alone_is_a_repository(run: Run, repository: Path) -> None:
    (repository / "net.onnx").touch()
    for path in ("models", "models/net.onnx"):
        assert run("check", path) == (0, ["1 model, no errors, no warnings"])


def test_the_rate_limiter_is_asked(run: Run, repository: Path) -> None:
    write_identity(repository, "m", 'instance_group { rate_limiter { resources { name: "R" count: 4 } } }')
    status, lines = run("check", "models", "--rate-limit=execution_count", "--rate-limit-resource=R:2")
    assert status == 1
    assert lines[0].startswith('models/m: error: Resource count for "R" is limited to 2')


def test_models_prints_what_would_be_served_and_why_not(run: Run, repository: Path) -> None:
    write_identity(repository, "good")
    write_model(repository, "bad", 'backend: "identity"\nmax_bach_size: 8\n')
    write_model(repository, "whole", ensemble("good"))
    status, lines = run("models", "models", "--model-control-mode=explicit", "--load-model=whole")
    assert status == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert rows[0] == ["Model", "Versions", "Backend", "Instances", "Status"]
    assert rows[1][:4] == ["bad", "-", "-", "-"]
    assert rows[1][4].startswith("UNAVAILABLE: models/bad/config.pbtxt:2:1: unknown field 'max_bach_size'")
    assert ["good", "1", "identity", "1", "would be served"] in rows
    assert ["whole", "1", "ensemble", "0", "would be served"] in rows
    status, lines = run("models", "models", "--model-control-mode=explicit")
    assert any("good" in line and "would be loaded on request" in line for line in lines)


def test_json_has_the_places_as_numbers(run: Run, repository: Path) -> None:
    write_identity(repository, "good")
    write_model(repository, "bad", 'backend: "identity"\nmax_bach_size: 8\n')
    status, lines = run("check", "models", "--json")
    found: dict[str, Any] = json.loads("\n".join(lines))
    (problem,) = found["problems"]
    assert status == 1
    assert problem["message"].startswith("unknown field 'max_bach_size'")
    assert {k: problem[k] for k in ("severity", "model", "file", "line", "column")} == {
        "severity": "error",
        "model": "bad",
        "file": "models/bad/config.pbtxt",
        "line": 2,
        "column": 1,
    }
    assert [(model["name"], model["served"]) for model in found["models"]] == [("bad", False), ("good", True)]


def test_workers_know_which_packages_there_are() -> None:
    assert isinstance(check.ask_workers(), dict)

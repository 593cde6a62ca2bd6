"""Ensembles in the text of a configuration: the steps that are read, and Triton's words for what is no graph."""

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.description import EnsembleStep, ModelDescription
from configs.errors import ConfigError
from configs.model import describe
from configs.server import ServerConfig

Describe = Callable[..., ModelDescription]


def tensors(field: str, names: str) -> str:
    return "".join(f'{field} {{ name: "{name}" data_type: TYPE_FP32 dims: [ -1 ] }}\n' for name in names.split())


def step(model: str, inputs: str, outputs: str, more: str = "model_version: -1") -> str:
    """`inputs` are pairs like `IN=X`."""

    def maps(field: str, pairs: str) -> str:
        named = [pair.split("=") for pair in pairs.split()]
        return " ".join(f'{field} {{ key: "{key}" value: "{value}" }}' for key, value in named)

    return f'step {{ model_name: "{model}" {more} {maps("input_map", inputs)} {maps("output_map", outputs)} }}'


def ensemble(inputs: str, outputs: str, *steps: str, more: str = "") -> str:
    scheduling = f"ensemble_scheduling {{ {' '.join(steps)} }}\n"
    return f'platform: "ensemble"\n{tensors("input", inputs)}{tensors("output", outputs)}{scheduling}{more}\n'


ADD = step("add", "IN=X", "OUT=O")


@pytest.fixture
def described(tmp_path: Path) -> Describe:
    def described_(text: str) -> ModelDescription:
        directory = tmp_path / "e"
        (directory / "1").mkdir(parents=True, exist_ok=True)
        (directory / "config.pbtxt").write_text(text)
        return describe(directory, None, ServerConfig(), ())

    return described_


def test_the_steps_are_read(described: Describe) -> None:
    text = ensemble("X", "O", step("one", "A=X B=X", "OUT=t", "model_version: 3"), step("two", "IN=t", "OUT=O"))
    found = described(text)
    assert found.steps == (
        EnsembleStep("one", 3, (("A", "X"), ("B", "X")), (("OUT", "t"),)),
        EnsembleStep("two", -1, (("IN", "t"),), (("OUT", "O"),)),
    )
    assert (found.platform, found.backend, found.instances) == ("ensemble", "", ())
    assert ModelDescription.from_wire(found.to_wire()) == found


def test_what_is_reported_has_no_instances_and_says_whether_it_is_decoupled(described: Describe) -> None:
    form = described(ensemble("X", "O", ADD)).config
    assert form["instance_group"] == []
    assert form["default_model_filename"] == ""
    assert form["model_transaction_policy"] == {"decoupled": False}
    assert "optimization" not in form
    assert form["ensemble_scheduling"] == {
        "step": [
            {
                "model_name": "add",
                "model_version": -1,
                "input_map": {"IN": "X"},
                "output_map": {"OUT": "O"},
                "model_namespace": "",
            }
        ]
    }


def test_a_limit_on_requests_under_way_is_a_hint(described: Describe) -> None:
    found = described(ensemble("X", "O", ADD, "max_inflight_requests: 3"))
    assert found.config["ensemble_scheduling"]["max_inflight_requests"] == 3
    assert len(found.warnings) == 1
    assert "'max_inflight_requests' of model 'e' has no effect here" in found.warnings[0]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('platform: "ensemble"', "ensemble scheduling must be set for ensemble e whose platform is ensemble"),
        (
            'backend: "python"\nensemble_scheduling { }',
            "ensemble scheduling cannot be set for model 'e' whose platform is not ensemble",
        ),
        (
            ensemble("X", "O", ADD, more='backend: "python"'),
            "Ensemble model 'e' must have platform type 'ensemble' and empty backend type",
        ),
        (
            ensemble("X", "O", ADD, more="instance_group { count: 2 }"),
            "instance group should not be specified for ensemble 'e'",
        ),
        (
            ensemble("X", "O", ADD, more="optimization { graph { level: 1 } }"),
            "optimization should not be specified for ensemble 'e'",
        ),
        (ensemble("X", "O"), "must specify 'step' for ensemble 'e'"),
        (ensemble("X", "O", step("", "IN=X", "OUT=O")), "must specify 'model_name' in step 0 of ensemble 'e'"),
        (ensemble("X", "O", ADD, step("add", "", "OUT=P")), "must specify 'input_map' in step 1 of ensemble 'e'"),
        (ensemble("X", "O", step("add", "IN=X", "")), "must specify 'output_map' in step 0 of ensemble 'e'"),
        (
            ensemble("X", "O", step("two", "IN=X", "A=O B=O")),
            "ensemble tensor 'O' can appear in an output map only once for ensemble 'e' step 0",
        ),
        (ensemble("X Z", "O", ADD), "ensemble input 'Z' for ensemble e' is not used"),
        (ensemble("X", "O Z", ADD), "ensemble output 'Z' for ensemble e' is not used"),
        (
            ensemble("X", "O", step("two", "IN=X", "A=O B=b")),
            "ensemble tensor 'b' is unused in ensemble 'e'",
        ),
        (
            ensemble(
                "X", "O", step("sum", "A=X B=m", "OUT=n"), step("add", "IN=n", "OUT=m"), step("add", "IN=m", "OUT=O")
            ),
            "output 'O' for ensemble 'e' is not written: at least one of its depending tensors, 'n', is not connected",
        ),
        (
            ensemble("X", "O", step("sum", "A=X B=ghost", "OUT=O")),
            "output 'O' for ensemble 'e' is not written: at least one of its depending tensors, 'ghost', is not "
            "connected",
        ),
    ],
)
def test_what_is_no_ensemble(described: Describe, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        described(text)
    (line,) = str(raised.value).splitlines()
    assert line.split("/config.pbtxt:")[1].split(": ", 1)[1] == error

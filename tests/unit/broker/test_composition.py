"""Whether ensembles can be served with the models that there are, with Triton's words, and when that changes."""

from dataclasses import replace
from typing import Any

import pytest

from broker.messages import Answer, ErrorCode, GetLabels, GetModelReady, LoadFailed, ModelRejected, ModelRemoved
from configs.description import ModelDescription, TensorSpec
from tests.unit.broker.describe import description
from tests.unit.broker.ensemble_world import EnsembleWorld, Step, ensemble, model, specs

ADD = model("add", "IN", "OUT")
SUM = model("sum", "X Y", "OUT")
MANY = model("many", "IN", "OUT", decoupled=True)


def shaped(name: str, *dims: int, datatype: str = "FP32", **more: Any) -> ModelDescription:
    """A model from IN to OUT of this shape."""
    tensors = [(TensorSpec(each, datatype, dims),) for each in ("IN", "OUT")]
    return description(name, inputs=tensors[0], outputs=tensors[1], **more)


def around(name: str, part: str, *dims: int, **more: Any) -> ModelDescription:
    """An ensemble of one step, from X to O of this shape."""
    made = ensemble(name, "X", "O", Step(part, {"IN": "X"}, {"OUT": "O"}))
    tensors = [(TensorSpec(each, "FP32", dims or (-1,)),) for each in ("X", "O")]
    return replace(made, inputs=tensors[0], outputs=tensors[1], **more)


@pytest.mark.parametrize(
    ("models", "error"),
    [
        ([around("e", "nothing")], "ensemble e contains models that are not available or ambiguous: nothing"),
        (
            [ADD, ensemble("e", "X", "O", Step("add", {"IN": "X"}, {"OUT": "O"}, 5))],
            "ensemble 'e' depends on 'add' whose required version 5 is not loaded.",
        ),
        (
            [ADD, ensemble("e", "X", "O", Step("add", {"NO": "X"}, {"OUT": "O"}))],
            "in ensemble e, ensemble tensor X is mapping to non-existing input NO in model add",
        ),
        (
            [ADD, ensemble("e", "X", "O", Step("add", {"IN": "X"}, {"NO": "O"}))],
            "in ensemble e, ensemble tensor O is mapped from non-existing output NO in model add",
        ),
        (
            [SUM, ensemble("e", "X", "O", Step("sum", {"X": "X"}, {"OUT": "O"}))],
            "in ensemble e, input Y in model sum is not mapped to any ensemble tensors",
        ),
        (
            [shaped("m", -1, datatype="INT32"), around("e", "m")],
            "in ensemble e, ensemble tensor X: inconsistent data type: TYPE_FP32 is inferred from model e while "
            "TYPE_INT32 is inferred from model m",
        ),
        (
            [shaped("m", 4), around("e", "m", 3)],
            "in ensemble e, ensemble tensor X: inconsistent shape: [3] is inferred from model e while [4] is inferred "
            "from model m",
        ),
        (
            [shaped("m", 4), around("e", "m", -1, 2)],
            "in ensemble e, ensemble tensor X: inconsistent shape: [-1,2] is inferred from model e while [4] is "
            "inferred from model m",
        ),
        (
            [shaped("m", 4, max_batch_size=8), around("e", "m", 4, max_batch_size=16)],
            "ensemble e allows maximum batch size 16, but it contains model m which only allows maximum batch size "
            "to be 8",
        ),
        (
            [ADD, ensemble("e", "X", "X O", Step("add", {"IN": "X"}, {"OUT": "O"}))],
            "in ensemble e, X cannot be both an input and an output",
        ),
        ([around("e", "e")], "circular dependency between ensembles: e -> ... -> e -> e"),
        (
            [
                MANY,
                SUM,
                ensemble(
                    "e",
                    "X",
                    "O",
                    Step("many", {"IN": "X"}, {"OUT": "m"}),
                    Step("sum", {"X": "X", "Y": "m"}, {"OUT": "O"}),
                ),
            ],
            "in ensemble e, step of model 'e' receives inputs originated from different decoupled models",
        ),
        (
            [
                ADD,
                MANY,
                ensemble(
                    "e", "X", "O P", Step("many", {"IN": "X"}, {"OUT": "O"}), Step("add", {"IN": "X"}, {"OUT": "P"})
                ),
            ],
            "in ensemble e, step of model 'e' receives inputs originated from different decoupled models",
        ),
    ],
)
def test_what_cannot_be_served(models: list[ModelDescription], error: str) -> None:
    world = EnsembleWorld(*models)
    assert world.state("e") == ("UNAVAILABLE", error)


def test_circles_of_several_ensembles() -> None:
    first = ensemble("a", "X", "O", Step("b", {"X": "X"}, {"O": "O"}))
    second = ensemble("b", "X", "O", Step("a", {"X": "X"}, {"O": "O"}))
    world = EnsembleWorld(first, second)
    assert world.state("a")[1] == "circular dependency between ensembles: a -> ... -> b -> a"
    assert world.state("b")[1] == "circular dependency between ensembles: b -> ... -> a -> b"


@pytest.mark.parametrize(
    ("batched", "own", "dims"),
    [(0, 0, (4,)), (8, 8, (4,)), (8, 0, (4,)), (0, 8, (4,)), (0, 8, (-1, 4)), (8, 0, (-1, 4))],
)
def test_models_with_and_without_batches_go_together(batched: int, own: int, dims: tuple[int, ...]) -> None:
    """By their dims, or by these with a batch dimension before them."""
    inner = dims if own == 0 and batched else (4,)
    outer = dims if batched == 0 and own else (4,)
    world = EnsembleWorld(shaped("m", *inner, max_batch_size=own), around("e", "m", *outer, max_batch_size=batched))
    assert world.state("e") == ("READY", "")


def test_ensembles_in_ensembles_have_a_limit() -> None:
    levels = [ensemble(f"e{n}", "X", "O", Step(f"e{n - 1}", {"X": "X"}, {"O": "O"})) for n in range(1, 17)]
    world = EnsembleWorld(ADD, ensemble("e0", "X", "O", Step("add", {"IN": "X"}, {"OUT": "O"})), *levels)
    assert world.state("e15") == ("READY", "")
    assert world.state("e16") == ("UNAVAILABLE", "in ensemble e16, ensembles are nested more than 16 deep")
    asked = world.ask("e15", "X")
    world.settle()
    assert asked.results == [{"O": "add.OUT(IN=X)"}]
    world.check_settled()


def test_optional_inputs_need_no_tensor() -> None:
    part = replace(model("m", "IN", "OUT"), inputs=(*specs(["IN"]), *specs(["MORE"], optional=True)))
    assert EnsembleWorld(part, around("e", "m")).state("e") == ("READY", "")


def test_an_ensemble_waits_for_its_models_whatever_their_order() -> None:
    outer = ensemble("a", "X", "O", Step("e", {"X": "X"}, {"O": "O"}))
    world = EnsembleWorld(outer, around("e", "m"), model("m", "IN", "OUT"))
    assert world.state("a") == ("READY", "")
    assert world.core.is_ready


def test_a_model_that_does_not_load_is_named_with_its_error() -> None:
    world = EnsembleWorld()
    world.loads_fail = LoadFailed(3, "it is broken")
    world.describe(
        model("m", "IN", "OUT"), around("e", "m"), ensemble("a", "X", "O", Step("e", {"X": "X"}, {"O": "O"}))
    )
    cause = "Model 'm' loading failed with error: version 1 is at UNAVAILABLE state: Invalid argument: it is broken;"
    error = f"ensemble 'e' depends on 'm' which has no loaded version. {cause}"
    assert world.state("e") == ("UNAVAILABLE", error)
    assert (
        world.state("a")[1] == f"ensemble 'a' depends on 'e' which is not valid. Model 'e' failed with error: {error}"
    )
    assert not world.core.is_ready


def test_a_model_whose_configuration_is_wrong() -> None:
    world = EnsembleWorld(around("e", "m"))
    world.handle(world.repository, ModelRejected("m", "line 3 is wrong"))
    error = "ensemble 'e' depends on 'm' which is not valid. Model 'm' failed with error: line 3 is wrong"
    assert world.state("e") == ("UNAVAILABLE", error)
    world.describe(model("m", "IN", "OUT"))
    assert world.state("e") == ("READY", "")


def test_a_model_that_changes_is_checked_anew() -> None:
    world = EnsembleWorld(shaped("m", 4), around("e", "m", 4))
    world.describe(replace(shaped("m", 5), fingerprint="b"))
    assert world.state("e")[1].startswith("in ensemble e, ensemble tensor X: inconsistent shape: [4]")
    world.describe(replace(shaped("m", -1), fingerprint="c"))
    assert world.state("e") == ("READY", "")
    world.handle(world.repository, ModelRemoved("m"))
    assert world.state("e")[0] == "UNAVAILABLE"


def test_an_ensemble_is_ready_as_long_as_its_models_are() -> None:
    world = EnsembleWorld(model("m", "IN", "OUT"), around("e", "m"))
    version = world.core.models["e"].versions[1]
    assert version.is_ready
    (worker,) = world.workers.values()
    world.core.fleet.workers[worker.token].state = type(world.core.fleet.workers[worker.token].state).WAITING
    assert not version.is_ready
    assert not world.core.is_ready


def test_the_models_of_an_ensemble_are_asked_whether_they_are_ready() -> None:
    world = EnsembleWorld()
    world.asks_models = True
    world.describe(
        model("m", "IN", "OUT"), around("e", "m"), ensemble("a", "X", "O", Step("e", {"X": "X"}, {"O": "O"}))
    )
    world.handle(world.frontend, GetModelReady(1, "a", -1))
    world.failing["m"] = (ErrorCode.UNAVAILABLE, "warming up")
    world.handle(world.frontend, GetModelReady(2, "a", -1))
    assert world.answered == [
        Answer(1, ErrorCode.OK, "", {"ready": True}),
        Answer(2, ErrorCode.UNAVAILABLE, "warming up", None),
    ]


def test_an_ensemble_is_decoupled_when_a_step_is_and_has_its_models_labels() -> None:
    labelled = replace(model("m", "IN", "OUT"), outputs=(TensorSpec("OUT", "FP32", (-1,), labels=("cat", "dog")),))
    world = EnsembleWorld(labelled, MANY, around("e", "m"), around("s", "many"))
    assert not world.core.models["e"].versions[1].description.decoupled
    assert world.core.models["s"].versions[1].description.decoupled
    assert world.core.models["s"].versions[1].description.config["model_transaction_policy"] == {"decoupled": True}
    labels = world.core._questions_by_message()[GetLabels](GetLabels(1, "e", -1))["labels"]
    assert labels == {"O": ("cat", "dog")}

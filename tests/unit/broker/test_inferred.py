"""What is said of a model without a configuration."""

from dataclasses import replace

from broker.inferred import told
from broker.models import Version
from configs.description import TensorSpec
from tests.unit.broker.describe import description
from tests.unit.broker.world import World


def test_what_was_found_is_told() -> None:
    config = {"default_model_filename": "model.onnx"}
    made = description("m", inputs=(), outputs=(), backend="onnxruntime", config=config)
    version = Version.create(made, 1)
    image, result = TensorSpec("image", "FP32", (3, -1)), TensorSpec("OUTPUT__0", "", None)
    version.complete((image,), (result,), {})
    assert told(version) == (
        "model 'm' version 1 has no configuration; inferred: backend onnxruntime (model.onnx), "
        "inputs image FP32 [3, -1], outputs OUTPUT__0 of any type of any shape, no batch dimension"
    )
    version.complete((), (), {"max_batch_size": 4, "dynamic_batching": {}})
    assert told(version).endswith("batches of up to 4, joined by the dynamic batcher")


def test_a_model_with_nothing_declared() -> None:
    version = Version.create(description("m", inputs=(), outputs=()), 1)
    assert "backend python, inputs of any kind, outputs of any kind, no batch dimension" in told(version)


def test_it_is_told_once_loaded_and_only_of_models_without_a_configuration() -> None:
    world = World()
    world.start(description("plain"), replace(description("found"), is_inferred=True))
    assert [line for line in world.log if "inferred" in line] == [
        "model 'found' version 1 has no configuration; inferred: backend python, inputs IN FP32 [-1], outputs OUT FP32 "
        "[-1], no batch dimension"
    ]

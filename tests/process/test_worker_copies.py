"""How often payload bytes are copied in our own code: on their way to a model, and on their way back."""

from pathlib import Path

import numpy as np
import pytest

from broker.messages import RegionOpened
from shm import copies
from tests.support.worker import ThreadBroker, item, tensor, write_model

SIZE = 600_000
PAYLOAD = np.zeros((1, SIZE // 4), dtype=np.float32)
CONFIG = {
    "max_batch_size": 8,
    "input": [tensor("INPUT__0", "TYPE_FP32", -1)],
    "output": [tensor("OUTPUT__0", "TYPE_FP32", -1)],
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    by_place: dict[str, int] = {}
    monkeypatch.setattr(copies, "by_place", by_place)
    return by_place


def test_identity(tmp_path: Path, counted: dict[str, int]) -> None:
    with ThreadBroker() as broker:
        broker.loaded("identity", tmp_path, CONFIG)
        broker.arrays(broker.infer(broker.ref("INPUT__0", PAYLOAD)))
    assert counted == {"arena": SIZE}


def test_a_step_reads_what_another_worker_has_made(tmp_path: Path, counted: dict[str, int]) -> None:
    """Two workers as the steps of an ensemble: one copy for each output, none in between."""
    with ThreadBroker() as first, ThreadBroker() as second:
        first.loaded("identity", tmp_path, CONFIG)
        second.loaded("identity", tmp_path, CONFIG)
        (made,) = first.infer(first.ref("INPUT__0", PAYLOAD), reader="").outputs
        second.send(RegionOpened(made.region))
        found = second.arrays(second.infer(made._replace(name="INPUT__0")))
        assert found["OUTPUT__0"].shape == PAYLOAD.shape
        assert counted == {"arena": 2 * SIZE}


def write_onnx(directory: Path, shape: tuple[str, ...] = ("n", "w"), out: tuple[str, ...] = ("n", "w")) -> Path:
    """`OUTPUT__0` is the negative `INPUT__0`."""
    onnx = pytest.importorskip("onnx")
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
        for name, dims in (("INPUT__0", shape), ("OUTPUT__0", out))
    ]
    node = onnx.helper.make_node("Neg", ["INPUT__0"], ["OUTPUT__0"])
    made = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    path = write_model(directory, "m", "", "1/model.onnx")
    made = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path / "1" / "model.onnx")
    return path


def test_onnxruntime(tmp_path: Path, counted: dict[str, int]) -> None:
    with ThreadBroker() as broker:
        broker.loaded("onnxruntime", write_onnx(tmp_path), CONFIG)
        one, two = [item(broker.ref("INPUT__0", PAYLOAD + n)) for n in range(1, 3)]
        (alone,) = broker.execute(one)
        assert counted == {}, "it is written where the client reads it"
        together = broker.execute(one, two)
        assert counted == {"arena": 2 * SIZE, "batch": 2 * SIZE}
        for result, expected in ((alone, -1), (together[0], -1), (together[1], -2)):
            assert set(broker.arrays(result)["OUTPUT__0"].flat) == {expected}


def test_onnxruntime_where_the_shape_is_not_known_before(tmp_path: Path, counted: dict[str, int]) -> None:
    with ThreadBroker() as broker:
        broker.loaded("onnxruntime", write_onnx(tmp_path, out=("n", "other")), CONFIG)
        assert broker.arrays(broker.infer(broker.ref("INPUT__0", PAYLOAD)))["OUTPUT__0"].shape == PAYLOAD.shape
    assert counted == {"arena": SIZE}


def test_openvino(tmp_path: Path, counted: dict[str, int]) -> None:
    openvino = pytest.importorskip("openvino")
    path = write_model(tmp_path, "m", "", "1/model.xml")
    given = openvino.opset13.parameter([-1, -1], openvino.Type.f32, "INPUT__0")
    result = openvino.opset13.result(openvino.opset13.negative(given))
    given.output(0).get_tensor().set_names({"INPUT__0"})
    result.output(0).get_tensor().set_names({"OUTPUT__0"})
    openvino.save_model(openvino.Model([result], [given], "m"), path / "1" / "model.xml")
    with ThreadBroker() as broker:
        broker.loaded("openvino", path, CONFIG)
        one, two = [item(broker.ref("INPUT__0", PAYLOAD + 1)) for _ in range(2)]
        (answer,) = broker.execute(one)
        assert broker.arrays(answer)["OUTPUT__0"].max() == -1
        assert counted == {"arena": SIZE}
        broker.execute(one, two)
    assert counted == {"arena": 3 * SIZE, "batch": 2 * SIZE}


def test_tensorflow(tmp_path: Path, counted: dict[str, int]) -> None:
    tensorflow = pytest.importorskip("workers.backends.tensorflow_import").tensorflow
    path = write_model(tmp_path, "m", "", "1/model.graphdef")
    with tensorflow.Graph().as_default() as graph:
        tensorflow.negative(tensorflow.compat.v1.placeholder("float32", [None, None], "INPUT__0"), "OUTPUT__0")
    (path / "1" / "model.graphdef").write_bytes(graph.as_graph_def().SerializeToString())
    with ThreadBroker() as broker:
        broker.loaded("tensorflow", path, {**CONFIG, "platform": "tensorflow_graphdef"})
        one, two = [item(broker.ref("INPUT__0", PAYLOAD + 1)) for _ in range(2)]
        (answer,) = broker.execute(one)
        assert broker.arrays(answer)["OUTPUT__0"].max() == -1
        assert counted == {"arena": SIZE}
        broker.execute(one, two)
    assert counted == {"arena": 3 * SIZE, "batch": 2 * SIZE}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_pytorch(tmp_path: Path, counted: dict[str, int]) -> None:
    pytest.importorskip("torch")
    path = Path(__file__).parent.parent.parent / "examples" / "model_repository" / "digits"
    image = {"input": [tensor("INPUT__0", "TYPE_FP32", 1, 8, 8)], "output": [tensor("OUTPUT__0", "TYPE_FP32", 10)]}
    images = np.zeros((8, 1, 8, 8), dtype=np.float32)
    with ThreadBroker() as broker:
        broker.loaded("pytorch", path, {"max_batch_size": 16, **image})
        one, two = [item(broker.ref("INPUT__0", images)) for _ in range(2)]
        broker.execute(one)
        assert counted == {"private": images.nbytes}  # the answer is small enough for the message
        broker.execute(one, two)
    assert counted == {"private": images.nbytes, "batch": 2 * images.nbytes}

"""TensorFlow and OpenVINO models behind a real server: the digits network, words, damaged files, a crash."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from examples.classify_digits import load_scans, pixels_tensor
from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
tensorflow = pytest.importorskip("workers.backends.tensorflow_import").tensorflow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "model_repository"
NETWORK = EXAMPLES / "digits_onnx" / "1" / "model.onnx"
LOAD_SECONDS = 120.0
"""Importing TensorFlow takes its time on a busy machine."""
ONE = instances(1)


class Digits(tensorflow.Module):  # type: ignore[misc]
    """The network of `digits_onnx`, with its weights."""

    def __init__(self) -> None:
        super().__init__()
        weights = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(NETWORK).graph.initializer}
        self.weights = {name: tensorflow.Variable(array) for name, array in weights.items()}

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 1, 8, 8], tensorflow.float32, "image")])
    def __call__(self, image: Any) -> Any:
        """ONNX has the channels before the pixels, TensorFlow behind them."""
        given = tensorflow.transpose(image, [0, 2, 3, 1])
        for layer in ("conv1", "conv2"):
            kernel = tensorflow.transpose(self.weights[f"{layer}.weight"], [2, 3, 1, 0])
            given = tensorflow.nn.relu(tensorflow.nn.conv2d(given, kernel, 1, "SAME") + self.weights[f"{layer}.bias"])
        given = tensorflow.transpose(tensorflow.nn.max_pool2d(given, 2, 2, "VALID"), [0, 3, 1, 2])
        given = tensorflow.reshape(given, [-1, 512])
        for layer, function in (("hidden", tensorflow.nn.relu), ("digit", tensorflow.nn.softmax)):
            given = function(
                given @ tensorflow.transpose(self.weights[f"{layer}.weight"]) + self.weights[f"{layer}.bias"]
            )
        return {"probabilities": given}


class Words(tensorflow.Module):  # type: ignore[misc]
    """How many words a text has, and the text with its words the other way round."""

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 1], tensorflow.string, "text")])
    def __call__(self, text: Any) -> Any:
        """Texts are UTF-8, and may be of any length."""
        words = tensorflow.strings.split(text[:, 0])
        backwards = tensorflow.strings.reduce_join(tensorflow.reverse(words.to_tensor(""), [1]), 1, separator=" ")
        return {
            "count": tensorflow.reshape(words.row_lengths(), [-1, 1]),
            "backwards": tensorflow.reshape(tensorflow.strings.strip(backwards), [-1, 1]),
        }


def write_savedmodel(directory: Path, module: Any) -> None:
    tensorflow.saved_model.save(module, str(directory / "1" / "model.savedmodel"), module.__call__)


def write_models(repository: Path) -> None:
    shutil.copytree(EXAMPLES / "digits_onnx", repository / "digits_onnx")
    network = openvino.Core().read_model(NETWORK)
    exact = 'parameters { key: "INFERENCE_PRECISION" value: { string_value: "f32" } }'
    directory = write_model(repository, "digits_openvino", f"max_batch_size: 16\n{ONE} {exact}")
    openvino.save_model(network, directory / "1" / "model.xml", compress_to_fp16=False)
    config = f'backend: "openvino" default_model_filename: "model.onnx"\nmax_batch_size: 16 {ONE}'
    shutil.copy(NETWORK, write_model(repository, "digits_openvino_onnx", config) / "1")
    write_savedmodel(write_model(repository, "digits_tensorflow", f"max_batch_size: 16\n{ONE}"), Digits())
    write_savedmodel(write_model(repository, "words", ONE), Words())
    damaged = write_model(repository, "cut_openvino", ONE)
    (damaged / "1" / "model.xml").write_bytes((repository / "digits_openvino/1/model.xml").read_bytes()[:-900])
    _write_fatal(repository)


def _write_fatal(repository: Path) -> None:
    """A graph whose initialisation ends the process."""
    io = f"input [ {tensor('x')} ] output [ {tensor('y')} ]"
    init = 'parameters { key: "TF_INIT_OPS_FILE" value: { string_value: "init.json" } }'
    directory = write_model(repository, "fatal", f'platform: "tensorflow_graphdef"\n{io}\n{init}\n{ONE}')
    graph = tensorflow.Graph()
    with graph.as_default():
        tensorflow.negative(tensorflow.compat.v1.placeholder("float32", [None], "x"), "y")
        tensorflow.raw_ops.Abort(error_msg="the graph wants it so", name="die")
    (directory / "1" / "model.graphdef").write_bytes(graph.as_graph_def().SerializeToString())
    (directory / "1" / "init.json").write_text(json.dumps({"init_ops": ["die"]}))


SERVED = ("digits_onnx", "digits_openvino", "digits_openvino_onnx", "digits_tensorflow", "words")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--model-control-mode=explicit", *[f"--load-model={name}" for name in SERVED]]
    server = Server(tmp_path_factory.mktemp("frameworks"), "", *flags)
    write_models(server.repository)
    server.start(wait="")
    server.wait("ready", LOAD_SECONDS)
    with server:
        yield server


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        ("digits_openvino", 1e-5),
        ("digits_openvino_onnx", 0.01),  # by default OpenVINO computes in BF16 where the processor can
        ("digits_tensorflow", 1e-5),
    ],
)
def test_the_digits_are_read_as_by_onnx_runtime(server: Server, model: str, tolerance: float, protocol: str) -> None:
    scans = load_scans(ROOT / "examples" / "data")
    images = np.concatenate([pixels_tensor(scan) for scan in scans])
    with Client(protocol, server) as client:
        expected = client.infer("digits_onnx", {"image": images})["probabilities"]
        found = client.infer(model, {"image": images})["probabilities"]
        alone = [client.infer(model, {"image": image[np.newaxis]})["probabilities"] for image in images]
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(np.concatenate(alone), expected, atol=tolerance)
    assert found.argmax(1).tolist() == [scan.truth for scan in scans]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts(server: Server, protocol: str) -> None:
    texts = [b"one two three", "zwei Wörter".encode(), b"", "日本 語".encode()]
    with Client(protocol, server) as client:
        found = client.infer("words", {"text": np.array([[text] for text in texts], dtype=np.object_)})
    assert found["count"].tolist() == [[3], [2], [0], [2]]
    assert [text.decode() for (text,) in found["backwards"]] == ["three two one", "Wörter zwei", "", "語 日本"]


def test_what_the_file_says_is_the_configuration(server: Server) -> None:
    with Client("http", server) as client:
        config = client.raw.get_model_config("words")
        metadata = client.metadata("words")
        other = client.raw.get_model_config("digits_openvino")
    assert (config["platform"], config["max_batch_size"]) == ("tensorflow_savedmodel", 4)
    assert config["dynamic_batching"]["preferred_batch_size"] == [4]
    assert [(i["name"], i["data_type"], i["dims"]) for i in config["input"]] == [("text", "TYPE_STRING", [1])]
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
    assert [(i["name"], i["dims"]) for i in other["input"]] == [("image", [1, 8, 8])]
    assert other["max_batch_size"] == 16


@pytest.mark.parametrize(("model", "cause"), [("cut_openvino", "model.xml': Error parsing"), ("fatal", "wants it so")])
def test_a_model_that_cannot_be_loaded_says_why_and_harms_nobody(server: Server, model: str, cause: str) -> None:
    with Client("http", server, LOAD_SECONDS) as client:
        with pytest.raises(InferenceServerException, match=cause) as raised:
            client.raw.load_model(model)
        assert model in str(raised.value)
        client.raw.unload_model(model)
        text = np.array([[b"still here"]], dtype=np.object_)
        assert client.infer("words", {"text": text})["count"].tolist() == [[2]]

"""A server for model files that lie in a directory, without a repository or a configuration."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.clients import Client
from tests.support.server import Server, log_lines

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")


def save_onnx(path: str, weights: str) -> None:
    """x times a matrix that lies in another file."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    matrix = onnx.numpy_helper.from_array(np.full((2, 3), 2, np.float32), "w")
    sides = [[helper.make_tensor_value_info(name, float32, dims)] for name, dims in (("x", (1, 2)), ("y", (1, 3)))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", *sides, [matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location=weights, size_threshold=0)


def save_torch(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = type("Double", (torch.nn.Module,), {"forward": lambda self, x: x + x})()
        torch.jit.trace(module, torch.ones(2)).save(path)


def test_files_are_served_and_the_log_says_as_what(new_server: Callable[..., Server]) -> None:
    server = new_server()
    save_onnx(str(server.repository / "scale.onnx"), "scale.onnx.data")
    save_torch(str(server.repository / "model.pt"))
    with server, Client("http", server) as client:
        assert client.infer("scale", {"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[4, 4, 4]]
        assert client.infer("model_repository", {"x": np.ones(2, np.float32)})["OUTPUT__0"].tolist() == [2, 2]
        told = sorted(line.partition(" model ")[2] for line in log_lines(server, "inferred"))
        assert [line.partition(" has no configuration; inferred: backend ")[2].split(",")[0] for line in told] == [
            "pytorch (model.pt)",
            "onnxruntime (model.onnx)",
        ]
        assert "inputs x FP32 [1, 2], outputs y FP32 [1, 3], no batch dimension" in told[1]

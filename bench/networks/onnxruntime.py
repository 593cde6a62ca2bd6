"""ONNX files in ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.networks.resnet import CLASSES, IMAGE, Filter, Floats, resnet50


class Graph:
    """Values are names in a graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def conv(self, value: str, filters: Filter) -> str:
        inputs = [value, self._constant(filters.weight), self._constant(filters.bias)]
        return self._node("Conv", inputs, strides=[filters.stride] * 2, pads=[filters.padding] * 4)

    def relu(self, value: str) -> str:
        return self._node("Relu", [value])

    def pool(self, value: str) -> str:
        return self._node("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def add(self, left: str, right: str) -> str:
        return self._node("Add", [left, right])

    def mean(self, value: str) -> str:
        return self._node("Flatten", [self._node("GlobalAveragePool", [value])])

    def dense(self, value: str, weight: Floats, bias: Floats) -> str:
        return self._node("Gemm", [value, self._constant(weight), self._constant(bias)], transB=1)

    def _constant(self, value: Floats) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name


def write_resnet50(path: Path) -> None:
    """The network, with input `image` and output `scores`."""
    made = Graph()
    resnet50("image", made)
    made.nodes[-1].output[0] = "scores"
    graph = helper.make_graph(
        made.nodes,
        "resnet50",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *IMAGE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        made.weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)


def load(file: Path, batch: Floats) -> Callable[[], Any]:
    """One execution."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: batch})

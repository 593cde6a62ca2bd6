"""ONNX models for tests; importing this skips the test where `onnx` is not installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
helper, TensorProto = onnx.helper, onnx.TensorProto

Shape = tuple[str | int, ...]


def model(graph: Any, *domains: str) -> Any:
    """A graph as a model; `domains` are those of operators that are not ONNX's."""
    opsets = [helper.make_opsetid("", 17), *[helper.make_opsetid(domain, 1) for domain in domains]]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def unary(
    operation: str = "Identity",
    element: int = TensorProto.FLOAT,
    shape: Shape = ("n", 2),
    out: Shape | None = None,
    default: bool = False,
    **attributes: Any,
) -> Any:
    """A model `y = operation(x)`."""
    graph = helper.make_graph(
        [helper.make_node(operation, ["x"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, shape if out is None else out)],
        [helper.make_tensor("x", element, [2], [5.0, 6.0])] if default else [],
    )
    return model(graph)


def upper() -> Any:
    """`y` is `x` in capitals, by an operator that ONNX Runtime does not have."""
    node = helper.make_node("StringUpper", ["x"], ["y"], domain="ai.onnx.contrib")
    texts = [helper.make_tensor_value_info(name, TensorProto.STRING, ("n", 1)) for name in ("x", "y")]
    return model(helper.make_graph([node], "g", texts[:1], texts[1:]), "ai.onnx.contrib")


def save(made: Any, version: Path) -> Path:
    """Write a model into a version directory; its file."""
    version.mkdir(parents=True, exist_ok=True)
    path = version / "model.onnx"
    onnx.save(made, path)
    return path


def library_of_operators() -> Path:
    """That of onnxruntime-extensions, without its package, which makes all processes use protobuf in Python."""
    spec = find_spec("onnxruntime_extensions")
    if spec is None or spec.origin is None:
        pytest.skip("onnxruntime-extensions is not installed")
    (path,) = Path(spec.origin).parent.glob("_extensions_pydll*.so")
    return path

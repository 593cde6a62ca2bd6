"""The OpenVINO backend on models made here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode
from shm.tensor import NUMPY
from tests.unit.workers.support import arrays, host, ref, request, run, spec, tensor
from workers.backend import IO, Interface
from workers.errors import BackendError

openvino = pytest.importorskip("openvino")

from openvino import opset13 as op  # noqa: E402

from workers.backends.openvino import _DATATYPES, OpenVinoBackend  # noqa: E402

IN = [tensor("x", "TYPE_FP32", 2)]
OUT = [tensor("y", "TYPE_FP32", 2)]


def network(
    operation: str = "negative", shape: Sequence[int] = (-1, 2), element: str = "f32", layout: str = "", copies: int = 1
) -> Any:
    """A model `y = operation(x)`, or of several inputs x0, x1 ... joined."""
    inputs = []
    for index in range(copies):
        given = op.parameter(list(shape), getattr(openvino.Type, element))
        given.output(0).get_tensor().set_names({"x" if copies == 1 else f"x{index}"})
        if layout:
            given.set_layout(openvino.Layout(layout))
        inputs.append(given)
    node = inputs[0] if copies == 1 else op.concat(inputs, 1)
    node = node if operation == "identity" else getattr(op, operation)(node)
    result = op.result(node)
    names = result.output(0).get_tensor().get_names()
    result.output(0).get_tensor().set_names(names | {"y"})
    return openvino.Model([result], inputs, "m")


def load(directory: Path, made: Any, config: dict[str, Any], **more: Any) -> tuple[OpenVinoBackend, Interface]:
    (directory / "1").mkdir(exist_ok=True)
    openvino.save_model(made, directory / "1" / "model.xml", compress_to_fp16=False)
    backend = OpenVinoBackend(spec(directory, config, **more), host())
    return backend, backend.load()


def refusal(directory: Path, made: Any, config: dict[str, Any], **more: Any) -> str:
    with pytest.raises(BackendError) as raised:
        load(directory, made, config, **more)
    return str(raised.value)


def parameters(**texts: str) -> dict[str, Any]:
    return {"parameters": {key: {"string_value": text} for key, text in texts.items()}}


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("batch", [-1, 3])
def test_batches_are_joined_and_split(tmp_path: Path, batch: int) -> None:
    """Also where the file has a batch size of its own: the model gets one of any size."""
    made = network(shape=(batch, 2))
    backend, interface = load(tmp_path, made, {"max_batch_size": 8, "input": IN, "output": OUT})
    assert interface == Interface()
    inputs = [floats(n, 2) for n in (1, 3, 2)]
    for array, outcome in zip(inputs, run(backend, *[request(x=i) for i in inputs]), strict=True):
        np.testing.assert_array_equal(arrays(outcome)["y"], -array)


@pytest.mark.parametrize("operation", ["negative", "identity"])
def test_without_a_batch_dimension_every_request_runs_alone(tmp_path: Path, operation: str) -> None:
    """The second execution must not write over the first one's answer."""
    config = {"input": [tensor("x", "TYPE_FP32", -1, 2)], "output": [tensor("y", "TYPE_FP32", -1, 2)]}
    backend, _ = load(tmp_path, network(operation), config)
    sign = -1 if operation == "negative" else 1
    one, two, bad = run(backend, request(x=floats(2, 2)), request(x=9 + floats(2, 2)), request(x=floats(2, 3)))
    np.testing.assert_array_equal(arrays(one)["y"], sign * floats(2, 2))
    np.testing.assert_array_equal(arrays(two)["y"], sign * (9 + floats(2, 2)))
    assert isinstance(bad, BackendError)
    assert bad.code == ErrorCode.INTERNAL
    assert str(bad).startswith("OpenVINO failed to execute: ")
    assert "shape=(2.3)" in str(bad)


@pytest.mark.parametrize(
    ("shape", "max_batch_size", "dims"),
    [((-1, 2), 0, (-1, 2)), ((-1, 2), 4, (2,)), ((-1,), 4, (1,)), ((3, -1), 0, (3, -1))],
)
def test_what_the_file_declares(
    tmp_path: Path, shape: Sequence[int], max_batch_size: int, dims: tuple[int, ...]
) -> None:
    backend, interface = load(tmp_path, network(shape=shape), {"max_batch_size": max_batch_size})
    assert interface[:2] == ((IO("x", "FP32", dims),), (IO("y", "FP32", dims),))
    entry: dict[str, Any] = {"data_type": "TYPE_FP32", "dims": list(dims)}
    entry |= {"reshape": {"shape": []}} if shape == (-1,) else {}
    assert interface.config == {"input": [{"name": "x", **entry}], "output": [{"name": "y", **entry}]}
    sent = floats(*([2] if max_batch_size else []), *[3 if dim == -1 else dim for dim in dims])
    completed = {"max_batch_size": max_batch_size, **interface.config}
    again, _ = load(tmp_path, network(shape=shape), completed)  # as a worker that comes back is told
    for loaded in (backend, again):
        np.testing.assert_array_equal(arrays(run(loaded, request(x=sent))[0])["y"], -sent)


@pytest.mark.parametrize("batch", [-1, 1])
def test_a_layout_with_a_batch_makes_the_model_batch(tmp_path: Path, batch: int) -> None:
    backend, interface = load(tmp_path, network(shape=(batch, 2), layout="NC"), {})
    np.testing.assert_array_equal(arrays(run(backend, request(x=floats(3, 2)))[0])["y"], -floats(3, 2))
    assert interface.config["max_batch_size"] == 4
    assert interface.config["dynamic_batching"] == {}
    assert interface.inputs == (IO("x", "FP32", (2,)),)
    assert "max_batch_size" not in load(tmp_path, network(layout="CN"), {})[1].config


@pytest.mark.parametrize("element", _DATATYPES)
def test_every_datatype(tmp_path: Path, element: str) -> None:
    backend, interface = load(tmp_path, network("identity", element=element), {"max_batch_size": 4})
    datatype = interface.inputs[0].datatype
    array = np.array([[0, 0x4049 if datatype == "BF16" else 1]]).astype(NUMPY[datatype])
    for outcome in run(backend, *[request(x=ref("x", array, datatype))] * 2):
        (found,) = arrays(outcome).values()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("element", ["f64", "string", "u4"])
def test_a_datatype_that_is_not_there(tmp_path: Path, element: str) -> None:
    text = refusal(tmp_path, network("identity", element=element), {"max_batch_size": 4})
    assert text == f"unsupported datatype {element} for 'x' for model 'm'"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"input": [tensor("z", "TYPE_FP32", 2)], "output": OUT},
            "unexpected inference input 'z', allowed inputs are: x",
        ),
        (
            {"input": IN, "output": [tensor("z", "TYPE_FP32", 2)]},
            "unexpected inference output 'z', allowed outputs are: y",
        ),
        (
            {"input": [tensor("x", "TYPE_FP64", 2)], "output": OUT},
            "unable to load model 'm', configuration expects datatype TYPE_FP64 for input 'x', model provides "
            "TYPE_FP32",
        ),
        (
            {"input": [*IN, tensor("z", "TYPE_FP32", 2)], "output": OUT},
            "unable to load model 'm', configuration expects 2 inputs, model provides 1",
        ),
        (
            {"input": [tensor("x", "TYPE_FP32", 3)], "output": OUT},
            "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,2]) but the model configuration "
            "specifies 2 dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit "
            "tensor shape, making complete shape [-1,3])",
        ),
        (
            {"input": [tensor("x", "TYPE_FP32", 2, optional=True)], "output": OUT},
            "input 'x' of model 'm' cannot be optional: the model has no default",
        ),
    ],
)
def test_a_configuration_that_does_not_fit(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    assert refusal(tmp_path, network(), {"max_batch_size": 4, **config}) == text


def test_an_input_that_the_configuration_leaves_out(tmp_path: Path) -> None:
    config = {"max_batch_size": 4, "input": [tensor("x1", "TYPE_FP32", 2)], "output": [tensor("y", "TYPE_FP32", 4)]}
    backend, interface = load(tmp_path, network(copies=2), config)
    assert interface.inputs == (IO("x0", "FP32", (2,)),)
    assert [entry["name"] for entry in interface.config["input"]] == ["x1", "x0"]
    (outcome,) = run(backend, request(x1=floats(1, 2), x0=floats(1, 2) + 5))
    np.testing.assert_array_equal(arrays(outcome)["y"], [[-5, -6, 0, -1]])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("INFERENCE_NUM_THREADS", "-1", "a non-negative number"),
        ("COMPILATION_NUM_THREADS", "many", "a non-negative number"),
        ("PERFORMANCE_HINT", "fast", "LATENCY/THROUGHPUT/CUMULATIVE_THROUGHPUT"),
        ("NUM_STREAMS", "none", "AUTO/NUMA/<int_value>"),
        ("HINT_BF16", "maybe", "YES/NO"),
        ("SKIP_OV_DYNAMIC_BATCHSIZE", "true", "YES/NO"),
        ("INFERENCE_PRECISION", "f8", "F32/F16/BF16"),
    ],
)
def test_a_parameter_with_a_wrong_value(tmp_path: Path, key: str, value: str, expected: str) -> None:
    text = refusal(tmp_path, network(), parameters(**{key: value}))
    assert text == f"expected the parameter '{key}' to be {expected}, got {value}"


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"INFERENCE_NUM_THREADS": "1"}, "INFERENCE_NUM_THREADS", 1),
        ({"COMPILATION_NUM_THREADS": "1"}, "PERFORMANCE_HINT", "LATENCY"),  # accepted, but not by the CPU
        ({"PERFORMANCE_HINT": "throughput"}, "PERFORMANCE_HINT", "THROUGHPUT"),
        ({"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"}, "NUM_STREAMS", 2),
        ({"HINT_BF16": "yes"}, "INFERENCE_PRECISION_HINT", "bf16"),
        ({"INFERENCE_PRECISION": "f32"}, "INFERENCE_PRECISION_HINT", "f32"),
    ],
)
def test_a_parameter_reaches_openvino(tmp_path: Path, given: dict[str, str], key: str, value: object) -> None:
    backend, _ = load(tmp_path, network(), parameters(**given))
    found = backend._request.get_compiled_model().get_property(key)
    assert str(getattr(found, "name", getattr(found, "to_string", lambda: found)())) == str(value)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"TARGET_DEVICE": "NPU"}, "failed to compile '{path}' for NPU: "),
        ({"CPU_EXTENSION_PATH": "/lib/libc.so.6"}, "CPU_EXTENSION_PATH '/lib/libc.so.6' of model 'm' leaves the model"),
        ({"CPU_EXTENSION_PATH": "../libmy.so"}, "CPU_EXTENSION_PATH '../libmy.so' of model 'm' leaves the model"),
        ({"CPU_EXTENSION_PATH": "libmy.so"}, "failed to load '{path}': "),
    ],
)
def test_devices_and_extensions_that_are_not_there(tmp_path: Path, given: dict[str, str], text: str) -> None:
    path = tmp_path / "1" / "model.xml"
    assert refusal(tmp_path, network(), parameters(**given)).startswith(text.format(path=path))


def test_only_the_cpu(tmp_path: Path) -> None:
    assert refusal(tmp_path, network(), {}, kind="KIND_GPU").startswith(
        "Triton OpenVINO backend supports only Kind CPU and AUTO"
    )


def test_a_batch_size_that_stays(tmp_path: Path) -> None:
    keep = {"max_batch_size": 4, "input": IN, "output": OUT}
    backend, _ = load(tmp_path, network(shape=(4, 2)), {**keep, **parameters(SKIP_OV_DYNAMIC_BATCHSIZE="YES")})
    with pytest.raises(BackendError, match="expected requests with batch size '4', got '3'"):
        run(backend, request(x=floats(3, 2)))
    (full,) = run(backend, request(x=floats(4, 2)))
    np.testing.assert_array_equal(arrays(full)["y"], -floats(4, 2))
    pads = parameters(SKIP_OV_DYNAMIC_BATCHSIZE="YES", ENABLE_BATCH_PADDING="yes")
    backend, _ = load(tmp_path, network(shape=(4, 2)), {**keep, **pads})
    one, two = run(backend, request(x=floats(1, 2)), request(x=floats(2, 2)))
    np.testing.assert_array_equal(arrays(one)["y"], -floats(1, 2))
    np.testing.assert_array_equal(arrays(two)["y"], -floats(2, 2))


def test_the_configuration_s_dims_can_win(tmp_path: Path) -> None:
    config = {"max_batch_size": 4, "input": [tensor("x", "TYPE_FP32", 5)], "output": [tensor("y", "TYPE_FP32", 5)]}
    backend, _ = load(tmp_path, network(), {**config, **parameters(RESHAPE_IO_LAYERS="YES")})
    (outcome,) = run(backend, request(x=floats(2, 5)))
    np.testing.assert_array_equal(arrays(outcome)["y"], -floats(2, 5))


def test_inputs_are_read_only_where_they_lie(tmp_path: Path) -> None:
    """OpenVINO gets the memory itself, and leaves it as it is."""
    backend, _ = load(tmp_path, network("relu"), {"max_batch_size": 4, "input": IN, "output": OUT})
    memory = bytearray((-floats(2, 2)).tobytes())
    sent = request(x=ref("x", floats(2, 2))._replace(data=memory))
    before = bytes(memory)
    run(backend, sent)
    lent = backend._request.get_input_tensor(0).data
    assert np.may_share_memory(lent, np.frombuffer(memory, np.uint8))
    assert bytes(memory) == before


IR = "model.xml"


@pytest.mark.parametrize("damage", ["empty", "cut", "no weights", "short weights", "text", "onnx cut"])
def test_a_damaged_file(tmp_path: Path, damage: str) -> None:
    weights = op.constant(floats(1000))
    given = op.parameter([1000], openvino.Type.f32)
    (tmp_path / "1").mkdir()
    path = tmp_path / "1" / IR
    openvino.save_model(openvino.Model([op.result(op.add(given, weights))], [given], "m"), path)
    config: dict[str, Any] = {}
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:700])
        case "text":
            path.write_text("no model")
        case "no weights":
            path.with_suffix(".bin").unlink()
        case "short weights":
            path.with_suffix(".bin").write_bytes(b"abc")
        case "onnx cut":
            digits = Path(__file__).parents[3] / "examples/model_repository/digits_onnx/1/model.onnx"
            path = path.with_suffix(".onnx")
            path.write_bytes(digits.read_bytes()[:3000])
            config = {"default_model_filename": path.name}
    with pytest.raises(BackendError) as raised:
        OpenVinoBackend(spec(tmp_path, config), host()).load()
    assert str(raised.value).startswith(f"failed to load '{path}': ")
    assert len(str(raised.value)) > len(f"failed to load '{path}': ") + 10

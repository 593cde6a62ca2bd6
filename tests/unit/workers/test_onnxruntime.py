"""The ONNX Runtime backend on graphs made here."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode, Item
from tests.support.onnx_graphs import Shape, TensorProto, helper, library_of_operators, model, onnx, save, upper
from tests.support.onnx_graphs import unary as graph
from tests.unit.workers.support import arrays, host, ref, request, run, spec, tensor
from workers.backend import IO, Interface, Room
from workers.errors import BackendError

pytest.importorskip("onnxruntime")

from workers.backends.onnx_graph import DATATYPES
from workers.backends.onnx_session import library, open_session
from workers.backends.onnxruntime import OnnxRuntimeBackend

IN = [tensor("x", "TYPE_FP32", 2)]
OUT = [tensor("y", "TYPE_FP32", 2)]


def no_room(item: Item, name: str, size: int) -> memoryview | None:
    return None


def load(
    directory: Path, made: Any, config: dict[str, Any], room: Room = no_room, **more: Any
) -> tuple[OnnxRuntimeBackend, Interface]:
    save(made, directory / "1")
    backend = OnnxRuntimeBackend(spec(directory, config, **more), host(room))
    return backend, backend.load()


def refusal(directory: Path, made: Any, config: dict[str, Any], **more: Any) -> str:
    with pytest.raises(BackendError) as raised:
        load(directory, made, config, **more)
    assert raised.value.code == ErrorCode.INVALID_ARG
    return str(raised.value)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_batches_are_joined_and_split(tmp_path: Path) -> None:
    backend, interface = load(tmp_path, graph("Neg"), {"max_batch_size": 8, "input": IN, "output": OUT})
    assert interface == Interface()
    inputs = [floats(n, 2) for n in (1, 3, 2)]
    for array, outcome in zip(inputs, run(backend, *[request(x=i) for i in inputs]), strict=True):
        np.testing.assert_array_equal(arrays(outcome)["y"], -array)


def test_without_a_batch_dimension_every_request_runs_alone(tmp_path: Path) -> None:
    made = graph("ReduceSum", out=(), keepdims=0)
    config = {"input": [tensor("x", "TYPE_FP32", -1, 2)], "output": [tensor("y", "TYPE_FP32", 1)]}
    backend, _ = load(tmp_path, made, config)
    good, bad = run(backend, request(x=floats(2, 2)), request(x=floats(2, 3)))
    assert arrays(good)["y"].tolist() == [6.0]
    assert isinstance(bad, BackendError)
    assert bad.code == ErrorCode.INTERNAL
    assert str(bad).startswith("onnx runtime error 2: Got invalid dimensions for input: x")


def test_a_directory_with_the_graph_in_it(tmp_path: Path) -> None:
    directory = tmp_path / "1" / "model.onnx"
    directory.mkdir(parents=True)
    onnx.save(graph(), directory / "model.onnx")
    backend = OnnxRuntimeBackend(spec(tmp_path, {}), host())
    assert backend.load().inputs == (IO("x", "FP32", (2,)),)


@pytest.mark.parametrize(
    ("shape", "given", "found", "dims"),
    [
        (("n", 2), 0, 4, (2,)),
        (("n", 2), 8, 8, (2,)),
        (("n",), 8, 8, (1,)),
        ((), 0, 0, (1,)),
        ((3, "w"), 0, 0, (3, -1)),
    ],
)
def test_what_the_graph_declares(tmp_path: Path, shape: Shape, given: int, found: int, dims: tuple[int, ...]) -> None:
    backend, interface = load(tmp_path, graph(shape=shape), {"max_batch_size": given})
    assert interface[:2] == ((IO("x", "FP32", dims),), (IO("y", "FP32", dims),))
    assert interface.config.get("max_batch_size", given) == found
    assert ("dynamic_batching" in interface.config) == (found > 1)
    sent = floats(*([2] if found else []), *[2 if dim == -1 else dim for dim in dims])
    for outcome in run(backend, request(x=sent), request(x=sent)):
        np.testing.assert_array_equal(arrays(outcome)["y"], sent)


@pytest.mark.parametrize("shape", [("n",), ()])
def test_a_worker_that_comes_later_is_told_what_the_first_one_has_found(tmp_path: Path, shape: Shape) -> None:
    first, interface = load(tmp_path, graph(shape=shape), {})
    second, nothing = load(tmp_path, graph(shape=shape), dict(interface.config))
    assert nothing == Interface()
    sent = floats(3, 1) if shape else floats(1)
    for backend in (first, second):
        np.testing.assert_array_equal(arrays(run(backend, request(x=sent))[0])["y"], sent)


@pytest.mark.parametrize("element", [t for t in range(1, 17) if t not in (14, 15)])
def test_every_datatype(tmp_path: Path, element: int) -> None:
    backend, interface = load(tmp_path, graph(element=element), {"max_batch_size": 4})
    datatype = interface.inputs[0].datatype
    if datatype == "BYTES":
        array: Any = np.array([[b"a", "é\0z".encode()]], dtype=np.object_)
    elif datatype == "BF16":
        array = np.array([[0x3F80, 0x4000]], dtype=np.uint16)
    else:
        array = np.array([[0, 1]]).astype(helper.tensor_dtype_to_np_dtype(element))
    sent = ref("x", array, datatype)
    for outcome in run(backend, request(x=sent), request(x=sent)):
        np.testing.assert_array_equal(arrays(outcome)["y"], array)
    assert datatype in DATATYPES.values()


def test_an_empty_bfloat16_tensor(tmp_path: Path) -> None:
    backend, _ = load(tmp_path, graph(element=TensorProto.BFLOAT16), {})
    sent = ref("x", np.zeros((0, 2), dtype=np.uint16), "BF16")
    assert arrays(run(backend, request(x=sent))[0])["y"].shape == (0, 2)


def test_strings_that_are_not_text(tmp_path: Path) -> None:
    backend, _ = load(tmp_path, graph(element=TensorProto.STRING), {"max_batch_size": 4})
    good, bad = [np.array([[b"a", word]], dtype=np.object_) for word in (b"b", b"\xff")]
    first, second = run(backend, request(x=bad), request(x=good))
    assert isinstance(first, BackendError)
    assert first.code == ErrorCode.INVALID_ARG
    assert arrays(second)["y"].tolist() == good.tolist()


def test_an_optional_input_and_its_default(tmp_path: Path) -> None:
    made = graph(shape=(2,), default=True)
    config = {"input": [tensor("x", "TYPE_FP32", 2, optional=True)], "output": OUT}
    backend, _ = load(tmp_path, made, config)
    assert arrays(run(backend, request())[0])["y"].tolist() == [5.0, 6.0]
    assert arrays(run(backend, request(x=floats(2)))[0])["y"].tolist() == [0.0, 1.0]
    assert "can be optional only" in refusal(tmp_path, made, {**config, "max_batch_size": 4})


FULL = "(an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete"


@pytest.mark.parametrize(
    ("made", "config", "message"),
    [
        (
            graph(),
            {"input": [*IN, tensor("z", "TYPE_FP32", 1)]},
            "unable to load model 'm', configuration expects 2 inputs, model provides 1",
        ),
        (
            graph(),
            {"input": [tensor("z", "TYPE_FP32", 1)]},
            "unexpected inference input 'z', allowed inputs are: x",
        ),
        (
            graph(),
            {"output": [tensor("z", "TYPE_FP32", 1)]},
            "unexpected inference output 'z', allowed outputs are: y",
        ),
        (
            graph(),
            {"input": [tensor("x", "TYPE_INT64", -1, 2)]},
            "unable to load model 'm', configuration expects datatype TYPE_INT64 for input 'x', "
            "model provides TYPE_FP32",
        ),
        (
            graph(shape=(3, 2)),
            {"max_batch_size": 4, "input": IN, "output": OUT},
            "model 'm', tensor 'x': for the model to support batching the shape should have at least 1 dimension and "
            "the first dimension must be -1; but shape expected by the model is [3,2]",
        ),
        (
            graph(),
            {"max_batch_size": 4, "input": [tensor("x", "TYPE_FP32", 3)]},
            "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,2]) but the model configuration "
            f"specifies 2 dimensions {FULL} shape [-1,3])",
        ),
        (
            graph(),
            {"input": IN, "output": OUT},
            "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,2]) but the model configuration "
            "specifies 1 dimensions (shape [2])",
        ),
        (
            graph(shape=("n", "m")),
            {"max_batch_size": 4, "input": [tensor("x", "TYPE_FP32", 5)], "output": OUT},
            "model 'm', tensor 'y': the model expects 2 dimensions (shape [-1,-1]) but the model configuration "
            f"specifies 2 dimensions {FULL} shape [-1,2])",
        ),
        (
            graph("ReduceSum", out=(), keepdims=0),
            {"output": OUT},
            "model 'm', scalar tensor 'y', should only provide 1 in the model configuration when the model doesn't "
            "support batching.",
        ),
        (
            graph(shape=(3, 2)),
            {"max_batch_size": 4},
            "autofill failed for model 'm': model does not support batching while non-zero max_batch_size is specified",
        ),
        (
            graph(),
            {"parameters": {"execution_mode": {"string_value": "fast"}}},
            "failed to convert 'fast' to integer (parameter 'execution_mode')",
        ),
    ],
)
def test_configurations_that_do_not_fit(tmp_path: Path, made: Any, config: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, made, config) == message


def test_settings_reach_the_session(tmp_path: Path) -> None:
    texts = {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "2",
        "execution_mode": "1",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "0",
        "session.disable_prepacking": "1",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
    }
    config = {
        "parameters": {key: {"string_value": value} for key, value in texts.items()},
        "optimization": {"graph": {"level": -1}},
    }
    save(graph("Neg"), tmp_path / "1")
    session, run_options, *_ = open_session(spec(tmp_path, config), 3)
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 2)
    assert options.execution_mode.name == "ORT_PARALLEL"
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert run_options.get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"


def test_kinds(tmp_path: Path) -> None:
    assert "must be KIND_CPU or KIND_GPU" in refusal(tmp_path, graph(), {}, kind="KIND_MODEL")
    with pytest.raises(BackendError, match="this ONNX Runtime has no CUDA") as raised:
        load(tmp_path, graph(), {}, kind="KIND_GPU")
    assert raised.value.code == ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_broken_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "1" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(graph().SerializeToString()[:-20] if content is None else content)
    backend = OnnxRuntimeBackend(spec(tmp_path, {}), host())
    with pytest.raises(BackendError, match=f"failed to load '{path}': onnx runtime error "):
        backend.load()


# ------------------------------------------------------------------------------------------- outputs in place


class Rooms:
    """Memory for outputs, as a worker lends it."""

    def __init__(self) -> None:
        self.by_output: dict[str, bytearray] = {}

    def __call__(self, item: Item, name: str, size: int) -> memoryview:
        self.by_output[name] = bytearray(size)
        return memoryview(self.by_output[name])


LARGE = 40_000  # elements
UNBATCHED = {"default-max-batch-size": "0"}


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT64])
@pytest.mark.parametrize("max_batch_size", [0, 4])
def test_a_large_output_is_written_where_it_is_to_lie(tmp_path: Path, element: int, max_batch_size: int) -> None:
    rooms = Rooms()
    made = graph(element=element, shape=("n", "w"))
    backend, interface = load(tmp_path, made, {"max_batch_size": max_batch_size}, rooms, **UNBATCHED)
    datatype = interface.inputs[0].datatype
    dtype = {"FP32": np.float32, "BF16": np.uint16, "INT64": np.int64}[datatype]
    sent = np.arange(2 * LARGE).reshape(2, LARGE).astype(dtype)
    (outcome,) = run(backend, request(x=ref("x", sent, datatype)))
    assert rooms.by_output["y"] == sent.tobytes()
    np.testing.assert_array_equal(arrays(outcome)["y"], sent)
    rooms.by_output.clear()
    small, large = sent[:, :9].copy(), sent
    for requests in ([small], [large, large]):
        for array, outcome in zip(
            requests, run(backend, *[request(x=ref("x", r, datatype)) for r in requests]), strict=True
        ):
            np.testing.assert_array_equal(arrays(outcome)["y"], array)
    assert rooms.by_output == {}, "what is small or shared by requests is copied"


def test_a_graph_whose_names_of_dimensions_are_wrong(tmp_path: Path) -> None:
    rooms = Rooms()
    backend, _ = load(tmp_path, graph("Transpose", shape=("n", "w")), {"max_batch_size": 0}, rooms, **UNBATCHED)
    sent = floats(2, LARGE)
    for _ in range(2):
        np.testing.assert_array_equal(arrays(run(backend, request(x=sent))[0])["y"], sent.T)
    assert len(rooms.by_output) == 1
    rooms.by_output.clear()
    run(backend, request(x=sent))
    assert not rooms.by_output, "it is not tried again"


def test_a_run_that_fails_in_place_says_what_failed(tmp_path: Path) -> None:
    rooms = Rooms()
    a, b, y = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", "w")) for name in "aby"]
    made = model(helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", [a, b], [y]))
    backend, _ = load(tmp_path, made, {}, rooms, **UNBATCHED)
    bad, good = request(a=floats(2, LARGE), b=floats(3, LARGE)), request(a=floats(2, LARGE), b=floats(2, LARGE))
    (outcome,) = run(backend, bad)
    assert str(outcome).startswith("onnx runtime error 1: Non-zero status code returned while running Add node.")
    rooms.by_output.clear()
    np.testing.assert_array_equal(arrays(run(backend, good)[0])["y"], 2 * floats(2, LARGE))
    assert rooms.by_output, "the next one is written in place again"


# ------------------------------------------------------------------------------------------- operators of one's own


def operators(*names: str | Path) -> dict[str, Any]:
    return {"model_operations": {"op_library_filename": [str(name) for name in names]}}


def test_a_library_of_operators(tmp_path: Path) -> None:
    path = library_of_operators()
    with pytest.raises(BackendError, match=r"ai\.onnx\.contrib"):
        load(tmp_path, upper(), {})
    shutil.copyfile(path, tmp_path / "libours.so")
    backend, _ = load(tmp_path, upper(), operators("libours.so"))
    sent = np.array([[b"abc"], ["dé".encode()]], dtype=np.object_)
    assert arrays(run(backend, request(x=sent))[0])["y"].tolist() == [[b"ABC"], ["Dé".encode()]]


def test_libraries_of_a_version_come_before_those_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for place in (tmp_path / "libours.so", tmp_path / "1" / "libours.so"):
        place.touch()
        assert library(spec(tmp_path, {}), "libours.so") == place


def test_libraries_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "outside.so").touch()
    (tmp_path / "m" / "empty.so").touch()
    (tmp_path / "m" / "link.so").symlink_to(tmp_path / "outside.so")
    for name in ("../outside.so", "missing.so", "link.so", str(tmp_path / "outside.so")):
        assert f"op_library_filename '{name}' of model 'm' is not there" in refusal(
            tmp_path / "m", upper(), operators(name)
        )
    with pytest.raises(BackendError, match=f"failed to load operators from '{tmp_path}/m/empty.so': .*too short"):
        load(tmp_path / "m", upper(), operators("empty.so"))


@pytest.mark.parametrize("name", [b"y", b"Neg"], ids=["of an output", "of an operator"])
def test_names_that_are_no_text(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: bytes) -> None:
    path = save(graph("Neg"), tmp_path / "1")
    path.write_bytes(path.read_bytes().replace(name, b"\xff" * len(name)))
    with pytest.raises(
        BackendError, match=f"failed to load '{path}': onnx runtime error 1: 'utf-8' codec can't decode"
    ):
        OnnxRuntimeBackend(spec(tmp_path, {}), host()).load()
    assert "Falling back" not in capfd.readouterr().out, "no other providers are tried"


# ------------------------------------------------------------------------------------------- ragged batches

RAGGED_IN = [tensor("x", "TYPE_FP32", -1, allow_ragged_batch=True)]
SCATTER = {"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["x"]}


def batch_input(name: str, kind: str, data_type: str = "TYPE_INT32") -> dict[str, Any]:
    return {"kind": kind, "target_name": [name], "data_type": data_type, "source_input": ["x"]}


def ragged_graph(dims: Shape = ("n",)) -> Any:
    """`y = -x`, end to end; `n` of each item the negative shape."""
    value = helper.make_tensor_value_info
    return model(
        helper.make_graph(
            [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Neg", ["shapes"], ["n"])],
            "g",
            [value("x", TensorProto.FLOAT, dims), value("shapes", TensorProto.INT32, ("items", "rank"))],
            [value("y", TensorProto.FLOAT, dims), value("n", TensorProto.INT32, ("items", "rank"))],
        )
    )


RAGGED = {
    "max_batch_size": 8,
    "input": RAGGED_IN,
    "output": [tensor("y", "TYPE_FP32", -1), tensor("n", "TYPE_INT32", -1)],
    "batch_input": [batch_input("shapes", "BATCH_ITEM_SHAPE")],
    "batch_output": [SCATTER],
}


def test_ragged_requests_run_end_to_end(tmp_path: Path) -> None:
    backend, _ = load(tmp_path, ragged_graph(), RAGGED)
    inputs = [floats(1, 2), floats(2, 3), floats(1, 1)]
    for array, outcome in zip(inputs, run(backend, *[request(x=i) for i in inputs]), strict=True):
        np.testing.assert_array_equal(arrays(outcome)["y"], -array)
        np.testing.assert_array_equal(arrays(outcome)["n"], np.full((len(array), 1), -array.shape[1]))


def test_a_ragged_input_has_one_dimension_in_the_graph(tmp_path: Path) -> None:
    assert refusal(tmp_path, ragged_graph(("n", 2)), RAGGED) == (
        "unable to load model 'm', configuration expects model provides input with shape [-1]  for ragged input 'x', "
        "model provides [-1,2]"
    )


def test_inputs_of_batches_are_inputs_of_the_graph(tmp_path: Path) -> None:
    assert refusal(tmp_path, ragged_graph(), {**RAGGED, "batch_input": []}).endswith(
        "configuration expects 1 inputs, model provides 2"
    )
    wrong = {**RAGGED, "batch_input": [batch_input("lengths", "BATCH_ELEMENT_COUNT")]}
    assert "unexpected inference input 'lengths'" in refusal(tmp_path, ragged_graph(), wrong)
    wrong = {**RAGGED, "batch_input": [batch_input("shapes", "BATCH_ITEM_SHAPE", "TYPE_FP32")]}
    assert "expects datatype TYPE_FP32 for input 'shapes', model provides TYPE_INT32" in refusal(
        tmp_path, ragged_graph(), wrong
    )


SEQUENCES = {
    "control_input": [
        {"name": "ready", "control": [{"fp32_false_true": [0, 1]}]},
        {"name": "id", "control": [{"data_type": "TYPE_INT64"}]},
    ],
    "state": [{"input_name": "before", "output_name": "after", "data_type": "TYPE_FP32", "dims": [2]}],
}


def stateful() -> Any:
    """`y = after = x * ready + before`."""
    inputs = [("x", TensorProto.FLOAT, 2), ("ready", TensorProto.FLOAT, 1), ("id", TensorProto.INT64, 1)]
    inputs.append(("before", TensorProto.FLOAT, 2))
    nodes = [
        helper.make_node("Mul", ["x", "ready"], ["z"]),
        helper.make_node("Add", ["z", "before"], ["y"]),
        helper.make_node("Identity", ["y"], ["after"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, element, ("n", size)) for name, element, size in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 2)) for name in ("y", "after")],
    )
    return model(made)


@pytest.mark.parametrize("io", [{"input": IN, "output": OUT}, {}], ids=["declared", "found"])
def test_controls_and_states_of_sequences_are_the_models_own(tmp_path: Path, io: dict[str, Any]) -> None:
    backend, interface = load(tmp_path, stateful(), {"max_batch_size": 4, "sequence_batching": SEQUENCES, **io})
    expected = ((IO("x", "FP32", (2,)),), (IO("y", "FP32", (2,)),)) if not io else ((), ())
    assert interface[:2] == expected
    values = {"x": [[1, 2]], "ready": [[3]], "before": [[5, 7]]}
    inputs = {name: np.array(value, np.float32) for name, value in values.items()}
    (outcome,) = run(backend, request(**inputs, id=np.array([[9]], np.int64)))
    assert {name: array.tolist() for name, array in arrays(outcome).items()} == {"y": [[8, 13]], "after": [[8, 13]]}


def test_controls_must_be_as_the_graph_has_them(tmp_path: Path) -> None:
    wrong = {**SEQUENCES, "control_input": SEQUENCES["control_input"][:1]}
    config = {"max_batch_size": 4, "sequence_batching": wrong, "input": IN, "output": OUT}
    assert "configuration expects 3 inputs, model provides 4" in refusal(tmp_path, stateful(), config)

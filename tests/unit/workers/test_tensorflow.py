"""The TensorFlow backend on models made here."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode
from shm.tensor import NUMPY
from tests.unit.workers.support import arrays, host, ref, request, run, spec, tensor
from workers.backend import IO, Interface
from workers.errors import BackendError

tensorflow = pytest.importorskip("workers.backends.tensorflow_import").tensorflow

from workers.backends.tensorflow import TensorFlowBackend, _options  # noqa: E402
from workers.backends.tensorflow_files import _DATATYPES  # noqa: E402

v1 = tensorflow.compat.v1
IN = [tensor("x", "TYPE_FP32", 2)]
OUT = [tensor("y", "TYPE_FP32", 2)]
SAVED = {"platform": "tensorflow_savedmodel"}
GRAPH = {"platform": "tensorflow_graphdef"}
Shape = Sequence[int | None] | None


def write_savedmodel(
    directory: Path,
    function: Callable[..., Any] = lambda x: {"y": -x},
    signature: str = "serving_default",
    tags: Sequence[str] = ("serve",),
    **inputs: tuple[Shape, str],
) -> Path:
    """A SavedModel with one signature; `inputs` are shape and type by name."""
    path = directory / "1" / "model.savedmodel"
    graph = v1.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        given = {n: v1.placeholder(t, shape) for n, (shape, t) in (inputs or {"x": ([None, 2], "float32")}).items()}
        found = function(**given)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        definition = v1.saved_model.predict_signature_def(given, found)
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, list(tags), {signature: definition}, main_op=v1.tables_initializer()
        )
        builder.save()
    return path


def write_graphdef(directory: Path, element: str = "float32") -> Path:
    """A graph of two: `y = -x` (for numbers), and `total`, the sum of a variable and the sum of x."""
    path = directory / "1" / "model.graphdef"
    path.parent.mkdir(exist_ok=True)
    graph = v1.Graph()
    with graph.as_default():
        x = v1.placeholder(element, [None, 2], name="x")
        tensorflow.negative(x, name="y") if element == "float32" else tensorflow.identity(x, name="y")
        if element == "float32":
            start = v1.get_variable("start", initializer=5.0, use_resource=False)
            tensorflow.add(start, tensorflow.reduce_sum(x, axis=1), name="total")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def load(directory: Path, config: dict[str, Any], **more: Any) -> tuple[TensorFlowBackend, Interface]:
    backend = TensorFlowBackend(spec(directory, config, **more), host())
    return backend, backend.load()


def refusal(directory: Path, config: dict[str, Any], **more: Any) -> str:
    with pytest.raises(BackendError) as raised:
        load(directory, config, **more)
    return str(raised.value)


def parameters(**texts: str) -> dict[str, Any]:
    return {"parameters": {key: {"string_value": text} for key, text in texts.items()}}


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_keras_is_left_out() -> None:
    assert "keras.src" not in sys.modules


@pytest.mark.parametrize("config", [SAVED, GRAPH], ids=["savedmodel", "graphdef"])
def test_batches_are_joined_and_split(tmp_path: Path, config: dict[str, Any]) -> None:
    (write_savedmodel if config is SAVED else write_graphdef)(tmp_path)
    backend, interface = load(tmp_path, {**config, "max_batch_size": 8, "input": IN, "output": OUT})
    assert interface == Interface()
    inputs = [floats(n, 2) for n in (1, 3, 2)]
    for array, outcome in zip(inputs, run(backend, *[request(x=i) for i in inputs]), strict=True):
        np.testing.assert_array_equal(arrays(outcome)["y"], -array)


def test_a_model_of_tensorflow_2(tmp_path: Path) -> None:
    class Weighted(tensorflow.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weights = tensorflow.Variable([[1.0], [10.0]])

        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 2], tensorflow.float32, "x")])
        def __call__(self, x: Any) -> Any:
            return {"y": x @ self.weights}

    made = Weighted()
    tensorflow.saved_model.save(made, str(tmp_path / "1" / "model.savedmodel"), made.__call__)
    backend, interface = load(tmp_path, SAVED)
    assert interface == Interface(
        (IO("x", "FP32", (2,)),),
        (IO("y", "FP32", (1,)),),
        {"max_batch_size": 4, "dynamic_batching": {}, "input": IN, "output": [tensor("y", "TYPE_FP32", 1)]},
    )
    (outcome,) = run(backend, request(x=floats(2, 2)))
    assert arrays(outcome)["y"].tolist() == [[10.0], [32.0]]


def test_without_a_batch_dimension_every_request_runs_alone(tmp_path: Path) -> None:
    write_savedmodel(tmp_path)
    dims = {"input": [tensor("x", "TYPE_FP32", -1, 2)], "output": [tensor("y", "TYPE_FP32", -1, 2)]}
    backend, interface = load(tmp_path, {**SAVED, **dims})
    assert interface == Interface()  # the dims say that the first one is no batch
    good, bad = run(backend, request(x=floats(2, 2)), request(x=floats(2, 3)))
    np.testing.assert_array_equal(arrays(good)["y"], -floats(2, 2))
    assert isinstance(bad, BackendError)
    assert bad.code == ErrorCode.INTERNAL
    assert str(bad).startswith("TensorFlow failed to execute: Cannot feed value of shape (2, 3)"), bad


@pytest.mark.parametrize(
    ("shape", "config", "batch", "dims"),
    [
        ([None, 2], {}, 4, (2,)),
        ([None], {}, 4, (1,)),
        ([3, None], {}, 0, (3, -1)),
        (None, {}, 4, None),
        ([None, 2], {"max_batch_size": 2}, None, (2,)),
        ([None, 2], {"input": [tensor("x", "TYPE_FP32", -1, 2)]}, 0, (-1, 2)),
        ([None, 2], {"input": IN}, 4, (2,)),
    ],
)
def test_what_the_file_declares(
    tmp_path: Path, shape: Shape, config: dict[str, Any], batch: int | None, dims: tuple[int, ...] | None
) -> None:
    write_savedmodel(tmp_path, x=(shape, "float32"))
    backend, interface = load(tmp_path, {**SAVED, **config})
    assert interface.config.get("max_batch_size") == (batch or None)
    assert ("dynamic_batching" in interface.config) == (batch != 0)
    assert interface.inputs == (() if "input" in config else (IO("x", "FP32", dims),))
    assert interface.outputs == (IO("y", "FP32", dims),)
    lead = [] if batch == 0 else [2]
    sent = floats(*lead, *[2 if dim == -1 else dim for dim in dims or (3, 2)])
    again, _ = load(tmp_path, {**SAVED, **config, **interface.config})  # as a worker that comes back is told
    for loaded in (backend, again):
        np.testing.assert_array_equal(arrays(run(loaded, request(x=sent))[0])["y"], -sent)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"auto-complete-config": "false"}, {}),
        ({"default-max-batch-size": "0"}, {}),
        ({"default-max-batch-size": "1"}, {"max_batch_size": 1}),
        ({"default-max-batch-size": "9"}, {"max_batch_size": 9, "dynamic_batching": {}}),
    ],
)
def test_settings_of_auto_completion(tmp_path: Path, settings: dict[str, str], found: dict[str, Any]) -> None:
    write_savedmodel(tmp_path)
    model = spec(tmp_path, SAVED)
    model.settings.update(settings)
    interface = TensorFlowBackend(model, host()).load()
    assert {key: interface.config[key] for key in interface.config if key not in {"input", "output"}} == found
    assert interface.inputs == (IO("x", "FP32", (2,) if found else (-1, 2)),)


def test_a_scheduler_of_the_configuration_stays(tmp_path: Path) -> None:
    write_savedmodel(tmp_path)
    _, interface = load(tmp_path, {**SAVED, "sequence_batching": {}})
    assert interface.config["max_batch_size"] == 4
    assert "dynamic_batching" not in interface.config


@pytest.mark.parametrize("element", _DATATYPES)
def test_every_datatype(tmp_path: Path, element: str) -> None:
    write_savedmodel(tmp_path, lambda x: {"y": tensorflow.identity(x)}, x=([None, 2], element))
    backend, interface = load(tmp_path, SAVED)
    datatype = interface.inputs[0].datatype
    if datatype == "BYTES":
        array: Any = np.array([["é\0z".encode(), b"\xff\0"]], dtype=np.object_)
    else:
        array = np.array([[0, 0x4049 if datatype == "BF16" else 1]]).astype(NUMPY[datatype])
    for outcome in run(backend, *[request(x=ref("x", array, datatype))] * 2):
        (found,) = arrays(outcome).values()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("element", ["complex64", "qint8"])
def test_a_datatype_that_is_not_there(tmp_path: Path, element: str) -> None:
    write_savedmodel(tmp_path, lambda x: {"y": tensorflow.identity(x)}, x=([None, 2], element))
    assert refusal(tmp_path, SAVED) == f"unsupported datatype {element} for 'x' for model 'm'"


def test_scalars(tmp_path: Path) -> None:
    write_savedmodel(tmp_path, lambda x: {"y": -x, "sum": tensorflow.reduce_sum(x)})
    assert refusal(tmp_path, SAVED) == (
        "unable to autofill for 'm': the rank of model tensor 'sum' is 0 and dimensions are not defined"
    )
    backend, interface = load(tmp_path, {**SAVED, "max_batch_size": 4, "output": OUT})  # nobody needs it
    assert interface.outputs == ()
    assert list(arrays(run(backend, request(x=floats(1, 2)))[0])) == ["y"]


def test_texts(tmp_path: Path) -> None:
    """A table of words: in and out are strings."""

    def translate(x: Any) -> dict[str, Any]:
        words = tensorflow.lookup.KeyValueTensorInitializer(["one", "two"], ["eins", "zwei"])
        return {"y": tensorflow.lookup.StaticHashTable(words, "?").lookup(x)}

    write_savedmodel(tmp_path, translate, x=([None, 1], "string"))
    backend, _ = load(tmp_path, SAVED)
    sent = [np.array([[word]], dtype=np.object_) for word in (b"two", b"none", b"one")]
    results = [arrays(outcome)["y"].tolist() for outcome in run(backend, *[request(x=array) for array in sent])]
    assert results == [[[b"zwei"]], [[b"?"]], [[b"eins"]]]
    (empty,) = run(backend, request(x=np.empty((0, 1), dtype=np.object_)))
    assert arrays(empty)["y"].shape == (0, 1)


def test_only_what_is_asked_for_is_computed(tmp_path: Path) -> None:
    def function(x: Any) -> dict[str, Any]:
        with tensorflow.control_dependencies([tensorflow.debugging.Assert(False, ["computed"])]):
            bad = tensorflow.identity(x)
        return {"y": -x, "bad": bad}

    write_savedmodel(tmp_path, function)
    backend, _ = load(tmp_path, SAVED)
    good = request(x=floats(1, 2))._replace(outputs=("y",))
    assert [list(arrays(outcome)) for outcome in run(backend, good, good)] == [["y"], ["y"]]
    with pytest.raises(BackendError, match=r"TensorFlow failed to execute: Node: .* assertion failed: \[computed\]"):
        run(backend, good, request(x=floats(1, 2)))


def test_states_of_sequences_are_computed_whatever_is_asked_for(tmp_path: Path) -> None:
    write_savedmodel(
        tmp_path,
        lambda x, before: {"y": -x, "after": before + x, "more": x},
        x=([None, 2], "float32"),
        before=([None, 2], "float32"),
    )
    state = {"input_name": "before", "output_name": "after", "data_type": "TYPE_FP32", "dims": [2]}
    backend, interface = load(tmp_path, {**SAVED, "sequence_batching": {"state": [state]}})
    assert [io.name for io in interface.inputs] == ["x"]
    assert [io.name for io in interface.outputs] == ["more", "y"]
    item = request(x=floats(1, 2), before=floats(1, 2) + 5)._replace(outputs=("y",))
    found = arrays(run(backend, item)[0])
    assert sorted(found) == ["after", "y"]
    np.testing.assert_array_equal(found["after"], 2 * floats(1, 2) + 5)


def test_ragged_requests_run_end_to_end(tmp_path: Path) -> None:
    write_savedmodel(
        tmp_path, lambda x, shapes: {"y": -x, "n": -shapes}, x=([None], "float32"), shapes=([None, None], "int32")
    )
    config = {
        **SAVED,
        "max_batch_size": 8,
        "input": [tensor("x", "TYPE_FP32", -1, allow_ragged_batch=True)],
        "output": [tensor("y", "TYPE_FP32", -1), tensor("n", "TYPE_INT32", -1)],
        "batch_input": [
            {"kind": "BATCH_ITEM_SHAPE", "target_name": ["shapes"], "data_type": "TYPE_INT32", "source_input": ["x"]}
        ],
        "batch_output": [{"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["x"]}],
    }
    backend, _ = load(tmp_path, config)
    inputs = [floats(1, 2), floats(2, 3), floats(1, 1)]
    for array, outcome in zip(inputs, run(backend, *[request(x=i) for i in inputs]), strict=True):
        np.testing.assert_array_equal(arrays(outcome)["y"], -array)
        np.testing.assert_array_equal(arrays(outcome)["n"], np.full((len(array), 1), -array.shape[1]))


def test_a_signature_and_a_tag_of_its_own(tmp_path: Path) -> None:
    write_savedmodel(tmp_path, signature="other", tags=("mine",))
    lines: list[tuple[str, str]] = []
    model = spec(tmp_path, {**SAVED, **parameters(TF_GRAPH_TAG="mine")})
    TensorFlowBackend(model, host()._replace(log=lambda level, text: lines.append((level, text)))).load()
    text = "model 'm' has no signature_def 'serving_default', 'other' is served in its place"
    assert lines == [("W", text)]
    load(tmp_path, {**SAVED, **parameters(TF_GRAPH_TAG="mine", TF_SIGNATURE_DEF="other")})
    assert "expected to find signature_def 'third'" in refusal(
        tmp_path, {**SAVED, **parameters(TF_GRAPH_TAG="mine", TF_SIGNATURE_DEF="third")}
    )
    assert "'serve'" in refusal(tmp_path, SAVED)


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
            {"input": [tensor("x", "TYPE_INT32", 2)], "output": OUT},
            "configuration expects datatype TYPE_INT32 for input 'x', model provides TYPE_FP32",
        ),
    ],
)
@pytest.mark.parametrize("platform", [SAVED, GRAPH], ids=["savedmodel", "graphdef"])
def test_a_configuration_that_does_not_fit(
    tmp_path: Path, platform: dict[str, Any], config: dict[str, Any], text: str
) -> None:
    if platform is SAVED:
        write_savedmodel(tmp_path)
    else:
        write_graphdef(tmp_path, "float64" if "INT32" in text else "float32")
        text = text.replace("FP32", "FP64").replace("outputs are: y", "outputs are: y, start/Assign, total")
    assert text in refusal(tmp_path, {**platform, "max_batch_size": 4, **config})


def test_a_graph_is_initialised_by_its_file(tmp_path: Path) -> None:
    write_graphdef(tmp_path)
    config = {
        **GRAPH,
        "max_batch_size": 4,
        "input": IN,
        "output": [tensor("total", "TYPE_FP32", 1, reshape={"shape": []})],
    }
    backend, _ = load(tmp_path, config)
    with pytest.raises(BackendError, match="uninitialized"):
        run(backend, request(x=floats(1, 2)))
    (tmp_path / "init.json").write_text(json.dumps({"init_ops": ["start/Assign"]}))
    backend, _ = load(tmp_path, {**config, **parameters(TF_INIT_OPS_FILE="init.json")})
    assert arrays(run(backend, request(x=floats(2, 2)))[0])["total"].tolist() == [[6.0], [10.0]]
    (tmp_path / "1" / "init.json").write_text(json.dumps({"init_ops": ["nothing"]}))
    text = refusal(tmp_path, {**config, **parameters(TF_INIT_OPS_FILE="init.json")})
    assert f"by the init_ops of '{tmp_path}/1/init.json': KeyError" in text
    assert "leaves the model directory" in refusal(tmp_path, {**config, **parameters(TF_INIT_OPS_FILE="../../x")})


def test_a_graph_needs_a_configuration(tmp_path: Path) -> None:
    write_graphdef(tmp_path)
    assert refusal(tmp_path, {**GRAPH, "output": OUT}).startswith(
        "model configuration must contain at least one input, none were specified"
    )


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (parameters(TF_NUM_INTRA_THREADS="-1"), "parameter 'TF_NUM_INTRA_THREADS' must be non-negative number"),
        (parameters(TF_NUM_INTER_THREADS="a"), "failed to convert 'a' to integer (parameter 'TF_NUM_INTER_THREADS')"),
        (parameters(TF_USE_PER_SESSION_THREADS="maybe"), "failed to convert 'maybe' to boolean"),
        (
            {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "x"}]}}},
            "CPU Execution Accelerator is not supported in TensorFlow backend",
        ),
        ({"platform": ""}, "platform of model 'm' must be tensorflow_savedmodel or tensorflow_graphdef, got ''"),
        ({"platform": "tensorflow_graphdef", "default_model_filename": "model.savedmodel"}, "is a directory, which"),
    ],
)
def test_what_is_refused(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    write_savedmodel(tmp_path)
    assert text in refusal(tmp_path, {**SAVED, **config})


def test_options_of_the_session(tmp_path: Path) -> None:
    model = spec(tmp_path, {**SAVED, "instance_group": [{"count": 1000}]})
    found = _options(model)
    assert (found.intra_op_parallelism_threads, found.inter_op_parallelism_threads) == (1, 1)
    assert (found.use_per_session_threads, found.allow_soft_placement) == (False, True)
    assert found.gpu_options.allow_growth
    texts = {"TF_NUM_INTRA_THREADS": "3", "TF_NUM_INTER_THREADS": "2", "TF_USE_PER_SESSION_THREADS": "1"}
    model = spec(tmp_path, {**SAVED, **parameters(**texts)})
    model.settings.update({"allow-soft-placement": "false", "gpu-memory-fraction": "0.5"})
    found = _options(model)
    assert (found.intra_op_parallelism_threads, found.inter_op_parallelism_threads) == (3, 2)
    assert (found.use_per_session_threads, found.allow_soft_placement) == (True, False)
    assert (found.gpu_options.allow_growth, found.gpu_options.per_process_gpu_memory_fraction) == (False, 0.5)
    model.settings["gpu-memory-fraction"] = "2"
    with pytest.raises(BackendError, match="must be a number from 0 to 1, got '2'"):
        _options(model)


def test_a_session_of_its_own_is_warned_about(tmp_path: Path) -> None:
    write_savedmodel(tmp_path)
    lines: list[str] = []
    model = spec(tmp_path, {**SAVED, **parameters(MAX_SESSION_SHARE_COUNT="2")})
    TensorFlowBackend(model, host()._replace(log=lambda level, text: lines.append(level + text))).load()
    assert lines == ["WMAX_SESSION_SHARE_COUNT has no effect: every instance is a process of its own"]


def test_openvino_reads_a_savedmodel(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from workers.backends.openvino import OpenVinoBackend  # noqa: PLC0415  # it may be missing

    write_savedmodel(tmp_path)
    config = {"default_model_filename": "model.savedmodel", "max_batch_size": 4}
    backend = OpenVinoBackend(spec(tmp_path, config), host())
    assert backend.load().inputs == (IO("x", "FP32", (2,)),)
    np.testing.assert_array_equal(arrays(run(backend, request(x=floats(3, 2)))[0])["y"], -floats(3, 2))


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    if tensorflow.config.list_physical_devices("GPU"):
        pytest.skip("there is one")
    write_savedmodel(tmp_path)
    assert "this TensorFlow sees no GPU" in refusal(tmp_path, SAVED, kind="KIND_GPU")
    load(tmp_path, SAVED, kind="KIND_MODEL")


def test_inputs_are_read_only_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session gets the memory itself, which it takes as it is when it is aligned, and does not write to it."""
    write_savedmodel(tmp_path, lambda x: {"y": tensorflow.nn.relu(x), "same": tensorflow.identity(x)})
    backend, _ = load(tmp_path, SAVED)
    memory = np.zeros(9000, np.uint8)
    start = -memory.ctypes.data % 4096
    sent = memory[start : start + 4000].view(np.float32).reshape(-1, 2)
    sent[:] = -floats(500, 2)
    item = request(x=ref("x", sent)._replace(data=sent.reshape(-1).view(np.uint8).data))
    fed: list[Any] = []
    call = backend._callable(("x",), ("same", "y"))
    monkeypatch.setattr(backend, "_callable", lambda *names: lambda *given: [fed.extend(given), *call(*given)][1:])
    (outcome,) = run(backend, item)
    np.testing.assert_array_equal(arrays(outcome)["same"], sent)
    assert np.may_share_memory(fed[0], memory)
    np.testing.assert_array_equal(sent, -floats(500, 2))


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "no variables", "no data", "graph empty", "graph cut"])
def test_a_damaged_file(tmp_path: Path, damage: str) -> None:
    if damage.startswith("graph"):
        path = file = write_graphdef(tmp_path)
        config = {**GRAPH, "input": IN, "output": OUT}
    else:
        path = write_savedmodel(tmp_path, lambda x: {"y": x * v1.get_variable("w", [500, 2], use_resource=False)[:1]})
        config, file = SAVED, path / "saved_model.pb"
    match damage.rpartition(" ")[2]:
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
        case "text":
            file.write_text("no model")
        case "variables":
            (path / "variables" / "variables.index").unlink()
        case "data":
            (path / "variables" / "variables.data-00000-of-00001").write_bytes(b"abc")
    text = refusal(tmp_path, config)
    assert str(path) in text
    assert "Traceback" not in text

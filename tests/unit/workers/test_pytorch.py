"""The PyTorch backend on modules made here."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode
from tests.unit.workers.support import arrays, host, ref, request, run, spec, tensor
from workers.backend import IO, Interface
from workers.errors import BackendError
from workers.outcome import Response

torch = pytest.importorskip("torch")

from workers.backends.pytorch import names, settings  # noqa: E402
from workers.backends.pytorch.backend import PyTorchBackend  # noqa: E402
from workers.backends.pytorch.names import Argument  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")

ONE = [tensor("INPUT__0", "TYPE_FP32", -1)]
OUT = [tensor("OUTPUT__0", "TYPE_FP32", -1)]


def save(directory: Path, source: str) -> None:
    """Write `1/model.pt`: a module whose methods have this TorchScript source."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = type("Module", (torch.jit.ScriptModule,), {})()  # modules of one class share their methods
        module.define(source)
        (directory / "1").mkdir(exist_ok=True)
        module.save(str(directory / "1" / "model.pt"))


def load(directory: Path, source: str, config: dict[str, Any]) -> tuple[PyTorchBackend, Interface]:
    save(directory, source)
    backend = PyTorchBackend(spec(directory, config), host())
    return backend, backend.load()


def refusal(directory: Path, source: str, config: dict[str, Any]) -> str:
    with pytest.raises(BackendError) as raised:
        load(directory, source, config)
    return str(raised.value)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


DOUBLE = "def forward(self, x):\n    return x * 2\n"


def test_batches_are_joined_and_split(tmp_path: Path) -> None:
    source = "def forward(self, x):\n    return x * 2, torch.ones([x.size(0), 1]) * x.size(0)\n"
    config = {"max_batch_size": 8, "input": ONE, "output": [*OUT, tensor("OUTPUT__1", "TYPE_FP32", 1)]}
    backend, interface = load(tmp_path, source, config)
    assert interface == Interface()
    inputs = [floats(n, 3) for n in (1, 3, 2)]
    for array, outcome in zip(inputs, run(backend, *[request(INPUT__0=i) for i in inputs]), strict=True):
        outputs = arrays(outcome)
        np.testing.assert_array_equal(outputs["OUTPUT__0"], array * 2)
        np.testing.assert_array_equal(outputs["OUTPUT__1"], np.full((len(array), 1), 6))


def test_without_a_batch_dimension_every_request_runs_alone(tmp_path: Path) -> None:
    backend, _ = load(
        tmp_path, "def forward(self, x):\n    return x.sum(0, keepdim=True)\n", {"input": ONE, "output": OUT}
    )
    outcomes = run(backend, request(INPUT__0=floats(3)), request(INPUT__0=floats(5)))
    assert [arrays(o)["OUTPUT__0"].tolist() for o in outcomes] == [[3.0], [10.0]]


def test_a_module_without_declared_inputs_and_outputs(tmp_path: Path) -> None:
    source = "def forward(self, left, right):\n    return left + right, left - right\n"
    backend, interface = load(tmp_path, source, {"max_batch_size": 4})
    assert interface.inputs == (IO("left", "", None), IO("right", "", None))
    assert interface.outputs == (IO("OUTPUT__0", "", None), IO("OUTPUT__1", "", None))
    (outcome,) = run(backend, request(right=np.ones((1, 2), dtype=np.int64), left=np.full((1, 2), 3, dtype=np.int64)))
    assert {n: a.tolist() for n, a in arrays(outcome).items()} == {"OUTPUT__0": [[4, 4]], "OUTPUT__1": [[2, 2]]}


@pytest.mark.parametrize(
    ("inputs", "positions"),
    [
        (("b", "a"), [1, 0]),
        (("X__1", "Y__0"), [1, 0]),
        (("a", "X__1"), None),
        (("p", "q"), None),
    ],
)
def test_binding_of_inputs(inputs: tuple[str, ...], positions: list[int] | None) -> None:
    assert names.bind(inputs, {"a": 0, "b": 1}) == positions


def test_inputs_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    config = {"input": [tensor("p", "TYPE_FP32", 1), tensor("q", "TYPE_FP32", 1)], "output": OUT}
    backend, _ = load(tmp_path, "def forward(self, a, b):\n    return a - b\n", config)
    (outcome,) = run(backend, request(q=floats(1), p=floats(1) + 5))
    assert arrays(outcome)["OUTPUT__0"].tolist() == [5.0]


def test_names_of_traced_arguments() -> None:
    traced = [Argument("argument_1", "TensorType", False), Argument("argument_2", "TensorType", False)]
    assert names.name_arguments(traced) == ["INPUT__0", "INPUT__1"]


def test_an_argument_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    source = "def forward(self, x, bias: Optional[Tensor] = None):\n    return x if bias is None else x + bias\n"
    backend, _ = load(tmp_path, source, {"input": [tensor("x", "TYPE_FP32", 1)], "output": OUT})
    assert arrays(run(backend, request(x=floats(1)))[0])["OUTPUT__0"].tolist() == [0.0]


def test_a_dictionary(tmp_path: Path) -> None:
    source = "def forward(self, x: Dict[str, Tensor]):\n    return x['a'] - x['b']\n"
    config = {"input": [tensor("a", "TYPE_FP32", 1), tensor("b", "TYPE_FP32", 1)], "output": OUT}
    backend, _ = load(tmp_path, source, config)
    assert arrays(run(backend, request(b=floats(1), a=floats(1) + 5))[0])["OUTPUT__0"].tolist() == [5.0]
    assert "keys of the dictionary" in refusal(tmp_path, source, {})


def test_a_list_of_tensors(tmp_path: Path) -> None:
    source = "def forward(self, x: List[Tensor]):\n    return x[0] - x[1]\n"
    output = {"output": [tensor("y", "TYPE_FP32", 1)]}
    for first, second in (("X__0", "X__1"), ("p", "q"), ("X__1", "X__0")):
        config = {"input": [tensor(first, "TYPE_FP32", 1), tensor(second, "TYPE_FP32", 1)], **output}
        backend, _ = load(tmp_path, source, config)
        (outcome,) = run(backend, request(**{first: floats(1) + 5, second: floats(1)}))
        assert arrays(outcome)["y"].tolist() == [-5.0 if first == "X__1" else 5.0]
    assert "must contain at least one input" in refusal(tmp_path, source, {})


def test_nested_results_are_numbered_from_left_to_right(tmp_path: Path) -> None:
    source = "def forward(self, x):\n    return x, (x + 1, ['a', 'b']), (x + 2,)\n"
    backend, interface = load(tmp_path, source, {})
    assert [io.name for io in interface.outputs] == [f"OUTPUT__{index}" for index in range(4)]
    outputs = {n: a.tolist() for n, a in arrays(run(backend, request(x=floats(1)))[0]).items()}
    assert outputs == {"OUTPUT__0": [0], "OUTPUT__1": [1], "OUTPUT__2": [b"a", b"b"], "OUTPUT__3": [2]}


def test_a_list_of_results_needs_its_outputs_declared(tmp_path: Path) -> None:
    source = "def forward(self, x):\n    return [x, x + 1]\n"
    backend, _ = load(tmp_path, source, {"output": [tensor("OUTPUT__1", "TYPE_FP32", 1)]})
    assert arrays(run(backend, request(x=floats(1)))[0])["OUTPUT__1"].tolist() == [1.0]
    assert "how many tensors the model returns is not known" in refusal(tmp_path, source, {})


def test_a_dictionary_of_results_is_read_by_its_keys(tmp_path: Path) -> None:
    source = "def forward(self, x):\n    return {'p': x, 'q': x + 1}\n"
    outputs = [tensor("q", "TYPE_FP32", 1), tensor("p", "TYPE_FP32", 1)]
    backend, _ = load(tmp_path, source, {"output": outputs})
    found = arrays(run(backend, request(x=floats(1)))[0])
    assert {n: a.tolist() for n, a in found.items()} == {"q": [1.0], "p": [0.0]}
    assert "the keys of the dictionary that the model returns" in refusal(tmp_path, source, {})


def test_strings_of_a_batch(tmp_path: Path) -> None:
    source = "def forward(self, x: List[str]):\n    return torch.tensor([len(s) for s in x]).unsqueeze(1)\n"
    config = {
        "max_batch_size": 4,
        "input": [tensor("x", "TYPE_STRING", 1, reshape={"shape": []})],
        "output": [tensor("n", "TYPE_INT64", 1)],
    }
    backend, _ = load(tmp_path, source, config)
    words = [np.array(batch, dtype=np.object_) for batch in ([b"a", b"bcd"], [b""])]
    outcomes = run(backend, *[request(x=batch) for batch in words])
    assert [arrays(outcome)["n"].tolist() for outcome in outcomes] == [[[1], [3]], [[0]]]


def test_strings(tmp_path: Path) -> None:
    source = "def forward(self, x: List[str]):\n    return [s + '!' for s in x]\n"
    config = {
        "input": [tensor("x", "TYPE_STRING", -1)],
        "output": [tensor("y", "TYPE_STRING", -1)],
    }
    backend, _ = load(tmp_path, source, config)
    words = np.array([b"a", "é".encode()], dtype=np.object_)
    good, bad = run(backend, request(x=words), request(x=np.array([b"\xff"], dtype=np.object_)))
    assert arrays(good)["y"].tolist() == [b"a!", "é!".encode()]
    assert isinstance(bad, BackendError)
    assert (bad.code, str(bad)) == (ErrorCode.INVALID_ARG, "input 'x' has a string that is not UTF-8")
    assert "1 dimensional List of String as input for 'x'" in refusal(tmp_path, source, {**config, "max_batch_size": 2})


def test_inputs_changed_in_place_are_private(tmp_path: Path) -> None:
    backend, _ = load(tmp_path, "def forward(self, x):\n    return x.add_(1)\n", {"input": ONE, "output": OUT})
    same = request(INPUT__0=floats(2))
    for _ in range(2):
        assert arrays(run(backend, same)[0])["OUTPUT__0"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("source", "outputs", "code", "message"),
    [
        (DOUBLE, [tensor("Y__1", "TYPE_FP32", 1)], ErrorCode.INVALID_ARG, "refers to an output index which doesn't"),
        (
            DOUBLE,
            [tensor("y", "TYPE_INT32", 1)],
            ErrorCode.INVALID_ARG,
            "configuration expects datatype TYPE_INT32 for output 'y', model provides TYPE_FP32",
        ),
        (
            "def forward(self, x):\n    return x.sum()\n",
            OUT,
            ErrorCode.INVALID_ARG,
            "output 'OUTPUT__0' is a scalar which is not supported.",
        ),
        (
            "def forward(self, x):\n    return 1\n",
            OUT,
            ErrorCode.INVALID_ARG,
            "output must be of type Tensor, List[str] or Tuple containing one of these two types. It is of type int",
        ),
        (
            "def forward(self, x):\n    return {'a': x}\n",
            [tensor("b", "TYPE_FP32", 1)],
            ErrorCode.INVALID_ARG,
            "output 'b' is not in the dictionary that the model returns: a",
        ),
        ("def forward(self, x):\n    return x.view(7, 7)\n", OUT, ErrorCode.INTERNAL, "is invalid for input of size 2"),
        ("def forward(self, x):\n    return x.to(9)\n", OUT, ErrorCode.UNSUPPORTED, "torch.complex64"),
    ],
)
def test_failures_to_execute(
    tmp_path: Path, source: str, outputs: list[dict[str, Any]], code: ErrorCode, message: str
) -> None:
    backend, _ = load(tmp_path, source, {"input": ONE, "output": outputs})
    (outcome,) = run(backend, request(INPUT__0=floats(2)))
    assert isinstance(outcome, BackendError)
    assert outcome.code == code
    assert message in str(outcome)


def test_an_output_of_another_batch_size(tmp_path: Path) -> None:
    backend, _ = load(
        tmp_path, "def forward(self, x):\n    return x[0]\n", {"max_batch_size": 4, "input": ONE, "output": OUT}
    )
    with pytest.raises(BackendError, match="its first dimension must be the batch size 2"):
        run(backend, request(INPUT__0=floats(2, 3)))


def test_half_precision(tmp_path: Path) -> None:
    for data_type, datatype, ones in (
        ("TYPE_FP16", "FP16", np.ones(2, np.float16)),
        ("TYPE_BF16", "BF16", np.full(2, 0x3F80, np.uint16)),
    ):
        config = {"input": [tensor("x", data_type, -1)], "output": [tensor("OUTPUT__0", data_type, -1)]}
        backend, _ = load(tmp_path, DOUBLE, config)
        (outcome,) = run(backend, request(x=ref("x", ones, datatype)))
        assert isinstance(outcome, Response), outcome
        (output,) = outcome.outputs
        assert (output.datatype, output.shape) == (datatype, (2,))
        twos = np.full(2, 2, np.float16) if datatype == "FP16" else np.full(2, 0x4000, np.uint16)
        assert bytes(output.data) == twos.tobytes()


def test_unsigned_inputs_are_refused(tmp_path: Path) -> None:
    backend, _ = load(tmp_path, DOUBLE, {})
    (outcome,) = run(backend, request(x=np.zeros(2, dtype=np.uint16)))
    assert isinstance(outcome, BackendError)
    assert outcome.code == ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        (DOUBLE, {"input": [*ONE, tensor("B__1", "TYPE_FP32", 1)]}, "expects 2 inputs, model provides at most 1"),
        ("def forward(self, x, y):\n    return x\n", {"input": ONE}, "expects 1 inputs, model provides at least 2"),
        (DOUBLE, {"input": [tensor("x", "TYPE_UINT16", 1)]}, "unsupported datatype TYPE_UINT16 for input 'x'"),
        (DOUBLE, {"input": [tensor("x__3", "TYPE_FP32", 1)]}, "input 'x__3' is for argument 3"),
        ("def forward(self, x: int):\n    return x\n", {}, "argument 'x' of forward has type int,"),
        (
            "def forward(self, x: Dict[str, Tensor], y):\n    return y\n",
            {},
            "takes a dictionary must not take anything else",
        ),
        (
            DOUBLE,
            {"input": [tensor("A__0", "TYPE_FP32", 1)] * 2},
            "configuration expects 2 inputs, model provides at most 1",
        ),
        (
            "def forward(self, x, y):\n    return x\n",
            {"input": [tensor("A__0", "TYPE_FP32", 1), tensor("B__0", "TYPE_FP32", 1)]},
            "two of the inputs A__0, B__0 are for the same argument",
        ),
        (DOUBLE, {"parameters": {"INFERENCE_MODE": {"string_value": "maybe"}}}, "failed to convert 'maybe' to boolean"),
    ],
)
def test_what_cannot_be_loaded(tmp_path: Path, source: str, config: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path, source, config)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_broken_files(tmp_path: Path, content: bytes | None) -> None:
    save(tmp_path, DOUBLE)
    path = tmp_path / "1" / "model.pt"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    backend = PyTorchBackend(spec(tmp_path, {}), host())
    with pytest.raises(BackendError, match=f"failed to load model 'm' from '{path}': ") as raised:
        backend.load()
    assert "C++" not in str(raised.value)


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    save(tmp_path, DOUBLE)
    backend = PyTorchBackend(spec(tmp_path, {}, kind="KIND_GPU"), host())
    with pytest.raises(BackendError, match="KIND_GPU but no GPUs are available"):
        backend.load()


def test_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    load(tmp_path, DOUBLE, {"parameters": {"INTRA_OP_THREAD_COUNT": {"string_value": "3"}}})
    assert torch.get_num_threads() == 3
    load(tmp_path, DOUBLE, {"instance_group": [{"count": 1000}]})
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ENABLE_NVFUSER", "2", "failed to convert '2' to boolean"),
        ("DISABLE_OPTIMIZED_EXECUTION", "yes", "failed to convert 'yes' to boolean"),
        ("ENABLE_WEIGHT_SHARING", "maybe", "failed to convert 'maybe' to boolean"),
        ("INTER_OP_THREAD_COUNT", "many", "failed to convert 'many' to integer"),
        ("TORCH_COMPILE_OPTIONAL_PARAMETERS", "{", "is no JSON"),
        ("TORCH_COMPILE_OPTIONAL_PARAMETERS", '{"model": 1}', "must be an object with keys out of fullgraph"),
    ],
)
def test_parameters_that_cannot_be_understood(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(BackendError) as raised:
        settings.read(spec(tmp_path, {"parameters": {key: {"string_value": value}}}))
    assert raised.value.code == ErrorCode.INVALID_ARG
    assert message in str(raised.value)
    assert key in str(raised.value)


def test_parameters(tmp_path: Path) -> None:
    values = {
        "NUM_THREADS": "3",
        "NUM_INTEROP_THREADS": "2",
        "ENABLE_WEIGHT_SHARING": "1",
        "ENABLE_JIT_PROFILING": "off",
        "TORCH_COMPILE_OPTIONAL_PARAMETERS": '{"dynamic": true}',
    }
    found = settings.read(spec(tmp_path, {"parameters": {k: {"string_value": v} for k, v in values.items()}}))
    assert (found.threads, found.interop_threads, found.shares_weights) == (3, 2, True)
    assert found.switches == (("ENABLE_JIT_PROFILING", False),)
    assert found.compile == {"dynamic": True}
    assert settings.read(spec(tmp_path, {})).compile is None


def test_switches(tmp_path: Path) -> None:
    names = ("ENABLE_JIT_EXECUTOR", "ENABLE_JIT_PROFILING", "ENABLE_TENSOR_FUSER", "INFERENCE_MODE", "DISABLE_CUDNN")
    for value in ("False", "on"):
        parameters = {name: {"string_value": value} for name in (*names, "DISABLE_OPTIMIZED_EXECUTION")}
        backend, _ = load(tmp_path, DOUBLE, {"parameters": parameters})
        assert arrays(run(backend, request(x=floats(2)))[0])["OUTPUT__0"].tolist() == [0.0, 2.0]
    load(tmp_path, DOUBLE, {})  # as it was
    torch.backends.cudnn.enabled = True


def test_ragged_requests_run_end_to_end(tmp_path: Path) -> None:
    source = "def forward(self, x, ends):\n    return x * 2, (ends[1:] - ends[:-1]).unsqueeze(1)\n"
    batch_input = {
        "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "target_name": ["ENDS__1"],
        "data_type": "TYPE_INT32",
        "source_input": ["INPUT__0"],
    }
    scatter = {
        "kind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
        "target_name": ["OUTPUT__0"],
        "source_input": ["INPUT__0"],
    }
    config = {
        "max_batch_size": 8,
        "input": [tensor("INPUT__0", "TYPE_FP32", -1, allow_ragged_batch=True)],
        "output": [*OUT, tensor("OUTPUT__1", "TYPE_INT32", 1)],
        "batch_input": [batch_input],
        "batch_output": [scatter],
    }
    backend, _ = load(tmp_path, source, config)
    inputs = [floats(1, n) for n in (2, 4, 1)]
    for array, outcome in zip(inputs, run(backend, *[request(INPUT__0=i) for i in inputs]), strict=True):
        np.testing.assert_array_equal(arrays(outcome)["OUTPUT__0"], array * 2)
        assert arrays(outcome)["OUTPUT__1"].tolist() == [[array.size]]
    assert "configuration expects 1 inputs" in refusal(tmp_path, source, {**config, "batch_input": []})


def test_states_whose_arguments_cannot_be_told(tmp_path: Path) -> None:
    states = [{"input_name": "before", "output_name": "after", "data_type": "TYPE_FP32", "dims": [1]}]
    config = {"sequence_batching": {"state": states}, "input": [tensor("p", "TYPE_FP32", 1)], "output": OUT}
    text = refusal(tmp_path, "def forward(self, x, state):\n    return x, state\n", config)
    assert text.startswith("PyTorch model 'm' is using sequence batching with state but not all inputs and outputs")


@pytest.mark.parametrize("is_declared", [True, False])
def test_controls_and_states_of_sequences_are_the_modules_own(tmp_path: Path, is_declared: bool) -> None:
    sequences = {
        "control_input": [{"name": "ready", "control": [{"fp32_false_true": [0, 1]}]}],
        "state": [{"input_name": "before", "output_name": "OUTPUT__1", "data_type": "TYPE_FP32", "dims": [2]}],
    }
    io = {"input": [tensor("x", "TYPE_FP32", 2)], "output": [tensor("OUTPUT__0", "TYPE_FP32", 2)]}
    source = "def forward(self, x, ready, before):\n    return x * ready + before, before * 2\n"
    config = {"max_batch_size": 4, "sequence_batching": sequences, **(io if is_declared else {})}
    backend, interface = load(tmp_path, source, config)
    found = Interface((IO("x", "", None),), (IO("OUTPUT__0", "", None),))
    assert interface == (Interface() if is_declared else found)
    values = {"x": [[1, 2]], "ready": [[3]], "before": [[5, 7]]}
    (outcome,) = run(backend, request(**{name: np.array(value, np.float32) for name, value in values.items()}))
    outputs = {"OUTPUT__0": [[8, 13]], "OUTPUT__1": [[10, 14]]}
    assert {name: array.tolist() for name, array in arrays(outcome).items()} == outputs

"""Every datatype comes back as it was sent: by every backend, without a batch and with one, over every way in.

A backend is one entry of `KINDS`: how a model of it is made that answers `IN__0` as `OUT__0` and so on, what it
refuses, and what it has no batches of.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from tests.support.clients import Array, Client
from tests.support.regions import Region
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

WIDTH = 3
BATCH = 5


def integers(datatype: str) -> Array:
    bounds = np.iinfo(datatype.lower())
    return np.array([bounds.min, 7, bounds.max], bounds.dtype)


VALUES: dict[str, Array] = {
    "BOOL": np.array([True, False, True]),
    **{name: integers(name) for name in [f"{kind}{bits}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)]},
    "FP16": np.array([np.nan, -0.0, 65504], np.float16),
    "FP32": np.array([np.nan, -0.0, 3e38], np.float32),
    "FP64": np.array([np.nan, -0.0, 1e308], np.float64),
    "BF16": np.array([np.nan, -0.0, 1e38], ml_dtypes.bfloat16),
    "BYTES": np.array([b"", "ü".encode(), b"text"], np.object_),
}
"""One row of each."""
SHAPES = {"none": [WIDTH], "one": [1, WIDTH], "many": [BATCH, WIDTH]}
"""By what the batch is."""


class Kind(NamedTuple):
    """A backend: `write` makes the files of a model for these datatypes; `refuses` says why, by datatype.

    What it refuses is asked of a model that declares nothing, so there has to be one. Datatypes in `alone` cannot share
    a model with others.
    """

    write: Callable[[Path, Sequence[str]], None]
    refuses: Mapping[str, str] = {}
    without_batch: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()


def no_files(version: Path, datatypes: Sequence[str]) -> None:
    """The backend needs none."""


def python(version: Path, datatypes: Sequence[str]) -> None:
    """BF16, which numpy lacks, goes by DLPack."""
    (version / "model.py").write_text("""
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([echo(t) for t in request.inputs()]) for request in requests]


def echo(tensor):
    name = tensor.name().replace("IN", "OUT")
    if tensor.triton_dtype() == 14:
        return pb_utils.Tensor.from_dlpack(name, tensor)
    return pb_utils.Tensor(name, tensor.as_numpy())
""")


def pytorch(version: Path, datatypes: Sequence[str]) -> None:
    kinds = ["List[str]" if datatype == "BYTES" else "Tensor" for datatype in datatypes] or ["Tensor"]
    arguments = ", ".join(f"IN__{index}: {kind}" for index, kind in enumerate(kinds))
    results = ", ".join(f"IN__{index}" for index in range(len(kinds)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = type("Echo", (torch.jit.ScriptModule,), {})()
        module.define(f"def forward(self, {arguments}):\n    return ({results},)\n")
        module.save(str(version / "model.pt"))


def onnxruntime(version: Path, datatypes: Sequence[str]) -> None:
    helper = onnx.helper
    dims = ["n"] if "none" in version.parent.name else ["batch", "n"]
    names = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16", "BYTES": "STRING"}
    types = [getattr(onnx.TensorProto, names.get(datatype, datatype)) for datatype in datatypes]
    sides = [[helper.make_tensor_value_info(f"{s}__{i}", t, dims) for i, t in enumerate(types)] for s in ("IN", "OUT")]
    nodes = [helper.make_node("Identity", [f"IN__{index}"], [f"OUT__{index}"]) for index in range(len(types))]
    graph = helper.make_graph(nodes, "echo", *sides)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), version / "model.onnx"
    )


def tensorflow(version: Path, datatypes: Sequence[str]) -> None:
    tf = pytest.importorskip("tensorflow").compat.v1
    names = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "BYTES": "string"}
    dims = [None] if "none" in version.parent.name else [None, None]
    with tf.Graph().as_default(), tf.Session() as session:
        given = {
            f"IN__{i}": tf.placeholder(tf.as_dtype(names.get(d, d.lower())), dims) for i, d in enumerate(datatypes)
        }
        answered = {name.replace("IN", "OUT"): tf.identity(tensor) for name, tensor in given.items()}
        tf.saved_model.simple_save(session, str(version / "model.savedmodel"), given, answered)


UNKNOWN_TO_TORCH = {
    datatype: f"has datatype {datatype}, which PyTorch models do not take"
    for datatype in ("UINT16", "UINT32", "UINT64")
}
KINDS = {
    "identity": Kind(no_files),
    "python": Kind(python),
    "pytorch": Kind(pytorch, UNKNOWN_TO_TORCH, frozenset({"BYTES"})),
    "onnxruntime": Kind(onnxruntime, alone=frozenset({"BYTES"})),  # its Python cannot take it beside BF16
    "tensorflow": Kind(tensorflow),
}


def models(backend: str, batch: str) -> dict[str, list[str]]:
    """The datatypes of each model of the backend, by the model's name."""
    kind, name = KINDS[backend], f"{backend}_{'none' if batch == 'none' else 'some'}"
    lacking = {*kind.refuses, *(kind.without_batch if batch != "none" else ())}
    taken = [datatype for datatype in VALUES if datatype not in lacking]
    return {name: [d for d in taken if d not in kind.alone], **{f"{name}_{d}": [d] for d in taken if d in kind.alone}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All `models`; and for each backend that refuses something `BACKEND_any`, which declares nothing."""
    made = Server(tmp_path_factory.mktemp("datatypes"))
    for backend, kind in KINDS.items():
        sized = [(size, *each) for batch, size in (("none", 0), ("many", 8)) for each in models(backend, batch).items()]
        for size, name, datatypes in sized:
            types = [(i, d.replace("BYTES", "STRING")) for i, d in enumerate(datatypes)]
            io = "".join(
                f"{side} [ {', '.join(tensor(f'{start}__{i}', f'TYPE_{d}', '[ -1 ]') for i, d in types)} ]\n"
                for side, start in (("input", "IN"), ("output", "OUT"))
            )
            config = f'backend: "{backend}"\nmax_batch_size: {size}\n{io}{instances(1)}\n'
            kind.write(write_model(made.repository, name, config) / "1", datatypes)
        if kind.refuses:
            kind.write(write_model(made.repository, f"{backend}_any", "") / "1", [])
    with made:
        yield made


def on_the_wire(datatype: str, array: Array) -> bytes:
    return bytes(serialize_byte_tensor(array).item()) if datatype == "BYTES" else array.tobytes()


def given(client: Client, index: int, datatype: str, array: Array) -> Any:
    """An input with its data."""
    found = client._module.InferInput(f"IN__{index}", [*array.shape], datatype)
    return found.set_data_from_numpy(array)


def in_messages(client: Client, model: str, sent: dict[str, Array]) -> dict[str, bytes]:
    """What comes back for each datatype, in its binary form."""
    inputs = [given(client, index, *each) for index, each in enumerate(sent.items())]
    result = client.raw.infer(model, inputs)
    return {d: on_the_wire(d, result.as_numpy(f"OUT__{index}")) for index, d in enumerate(sent)}


def in_shared_memory(client: Client, model: str, sent: dict[str, Array]) -> dict[str, bytes]:
    """The same, all of it by way of memory that the client has registered."""
    data = {datatype: on_the_wire(datatype, array) for datatype, array in sent.items()}
    module, offset = client._module, 0
    with Region(client, 1 << 16) as region:
        inputs, outputs, places = [], [], {}
        for index, (datatype, raw) in enumerate(data.items()):
            memory.set_shared_memory_region(region.handle, [np.frombuffer(raw, np.uint8)], offset)
            inputs.append(module.InferInput(f"IN__{index}", [*sent[datatype].shape], datatype))
            inputs[-1].set_shared_memory(region.name, len(raw), offset)
            places[datatype] = region.middle + offset
            outputs.append(module.InferRequestedOutput(f"OUT__{index}"))
            outputs[-1].set_shared_memory(region.name, len(raw), places[datatype])
            offset += len(raw) + -len(raw) % 8
        client.raw.infer(model, inputs, outputs=outputs)
        read = memory.get_contents_as_numpy
        return {d: read(region.handle, np.uint8, [len(data[d])], place).tobytes() for d, place in places.items()}


WAYS: dict[str, tuple[str, Callable[[Client, str, dict[str, Array]], dict[str, bytes]]]] = {
    "http": ("http", in_messages),
    "grpc": ("grpc", in_messages),
    "http and memory": ("http", in_shared_memory),
    "grpc and memory": ("grpc", in_shared_memory),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", SHAPES)
@pytest.mark.parametrize("backend", KINDS)
def test_what_is_sent_comes_back(server: Server, backend: str, batch: str, way: str) -> None:
    protocol, ask = WAYS[way]
    with Client(protocol, server) as client:
        for model, datatypes in models(backend, batch).items():
            sent = {d: np.broadcast_to(VALUES[d], SHAPES[batch]).copy() for d in datatypes}
            assert ask(client, model, sent) == {d: on_the_wire(d, array) for d, array in sent.items()}


REFUSED = [(backend, datatype) for backend, kind in KINDS.items() for datatype in kind.refuses]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(("backend", "datatype"), REFUSED)
def test_what_a_backend_does_not_take_is_refused_by_name(
    server: Server, backend: str, datatype: str, protocol: str
) -> None:
    with Client(protocol, server) as client, pytest.raises(InferenceServerException) as raised:
        client.raw.infer(f"{backend}_any", [given(client, 0, datatype, VALUES[datatype])])
    assert KINDS[backend].refuses[datatype] in raised.value.message()


def test_every_datatype_is_there() -> None:
    assert len(VALUES) == 14
    for backend, kind in KINDS.items():
        taken = [datatype for datatypes in models(backend, "none").values() for datatype in datatypes]
        assert {*taken, *kind.refuses} == VALUES.keys()

"""Sequences as clients see them: in order at one worker, over every protocol, with state, steps, deaths and ends."""

import contextlib
import signal
import struct
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support.clients import INVALID, PROTOCOLS, UNAVAILABLE, Client, status_of
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

SECONDS = 60.0
CRASH = -99
PROTOCOLS_AND_STREAM = (*PROTOCOLS, "stream")
SUMS_IO = (
    f"input [ {tensor('VALUE', 'TYPE_INT32', '[ 1 ]')} ]\n"
    f"output [ {tensor('SUM', 'TYPE_INT32', '[ 1 ]')}, {tensor('PID', 'TYPE_INT32', '[ 1 ]')} ]\n"
)
CONTROLS = """
control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ]
control_input [ { name: "END" control [ { kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] } ] } ]
control_input [ { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } ] } ]
control_input [ { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_%s } ] } ]
"""


def write_sums(
    repository: Path, name: str, more: str, identity: str = "UINT64", count: int = 1, slots: int = 2
) -> None:
    """A model that adds up each sequence's values."""
    sequences = f"sequence_batching {{ {more}\n{CONTROLS % identity} }}\n"
    config = f'backend: "python"\nmax_batch_size: {slots}\n{SUMS_IO}{sequences}{instances(count)}\n'
    write_model(repository, name, config, "sums")


def write_running(repository: Path, backend: str) -> None:
    """A model whose state the server keeps; it starts with 100."""
    answer, after = ("SUM__0", "NEXT__1") if backend == "pytorch" else ("SUM", "NEXT")
    state = (
        f'sequence_batching {{ state [ {{ input_name: "TOTAL" output_name: "{after}" data_type: TYPE_INT32 dims: [ 1 ] '
        'initial_state { name: "hundred" data_type: TYPE_INT32 dims: [ 1 ] data_file: "hundred" } } ] }\n'
    )
    value = tensor("VALUE", "TYPE_INT32", "[ 1 ]")
    io = f"input [ {value} ]\noutput [ {tensor(answer, 'TYPE_INT32', '[ 1 ]')} ]\n"
    config = f'backend: "{backend}"\nmax_batch_size: 2\n{io}{state}{instances(1)}\n'
    directory = write_model(repository, f"running_{backend}", config, "running" if backend == "python" else "")
    (directory / "initial_state").mkdir()
    (directory / "initial_state" / "hundred").write_bytes(struct.pack("<i", 100))
    if backend == "onnxruntime":
        _save_onnx(directory / "1" / "model.onnx")
    if backend == "pytorch":
        _save_torch(directory / "1" / "model.pt")


def _save_onnx(path: Path) -> None:
    helper = onnx.helper
    names = ("VALUE", "TOTAL"), ("SUM", "NEXT")
    values = [[helper.make_tensor_value_info(n, onnx.TensorProto.INT32, ("n", 1)) for n in side] for side in names]
    nodes = [helper.make_node("Add", ["VALUE", "TOTAL"], ["SUM"]), helper.make_node("Identity", ["SUM"], ["NEXT"])]
    made = helper.make_graph(nodes, "g", *values)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _save_torch(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = type("Running", (torch.jit.ScriptModule,), {})()
        module.define("def forward(self, VALUE, TOTAL):\n    return VALUE + TOTAL, VALUE + TOTAL\n")
        module.save(str(path))


def write_ensemble(repository: Path) -> None:
    """The model `sums`, as the step of an ensemble."""
    maps = "".join(f' output_map {{ key: "{name}" value: "{name}" }}' for name in ("SUM", "PID"))
    step = f'step [ {{ model_name: "sums" model_version: -1 input_map {{ key: "VALUE" value: "VALUE" }}{maps} }} ]'
    config = f'platform: "ensemble"\nmax_batch_size: 2\n{SUMS_IO}ensemble_scheduling {{ {step} }}\n'
    write_model(repository, "ensemble", config)


def write_steps(repository: Path, name: str, more: str = "") -> None:
    """A model with iterative sequences."""
    start = (
        'control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ]'
    )
    io = f"input [ {tensor('COUNT', 'TYPE_INT32', '[ 1 ]')} ]\noutput [ {tensor('OUT', 'TYPE_INT32', '[ 1 ]')} ]\n"
    sequences = f"sequence_batching {{ iterative_sequence: true oldest {{ }} {start} }}\n"
    write_model(
        repository, name, f'backend: "python"\nmax_batch_size: 4\n{io}{sequences}{more}{instances(1)}\n', "steps"
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("sequences"))
    minute = "max_sequence_idle_microseconds: 60000000"
    write_sums(server.repository, "sums", f"{minute} direct {{ }}", count=2)
    write_sums(server.repository, "named", f"{minute} oldest {{ max_candidate_sequences: 3 }}", "STRING")
    write_sums(server.repository, "brief", "max_sequence_idle_microseconds: 300000", slots=1)
    write_sums(server.repository, "narrow", minute, slots=1)
    for backend in ("python", "onnxruntime", "pytorch"):
        write_running(server.repository, backend)
    write_ensemble(server.repository)
    write_steps(server.repository, "steps")
    write_steps(server.repository, "tokens", "model_transaction_policy { decoupled: true }\n")
    with server:
        yield server


class Caller:
    """Asks one model about sequences, over one protocol; `stream` is ModelStreamInfer."""

    def __init__(self, server: Server, protocol: str, model: str) -> None:
        self._client = Client("grpc" if protocol == "stream" else protocol, server)
        self._model = model
        self._answers: SimpleQueue[Any] | None = None
        self.protocol = self._client.protocol
        if protocol == "stream":
            self._answers = SimpleQueue()
            answers = self._answers
            self._client.raw.start_stream(lambda result, error: answers.put(error or result))

    def __call__(
        self, value: int, identity: int | str, start: bool = False, end: bool = False, **more: Any
    ) -> dict[str, int]:
        """The outputs for the next value of a sequence. Raises InferenceServerException."""
        array = np.array([[value]], np.int32)
        flags = {"sequence_id": identity, "sequence_start": start, "sequence_end": end, **more}
        if self._answers is None:
            found = self._client.infer(self._model, {"VALUE": array}, **flags)
        else:
            given = triton.InferInput("VALUE", [1, 1], "INT32").set_data_from_numpy(array)
            self._client.raw.async_stream_infer(self._model, [given], **flags)
            answer = self._answers.get(timeout=SECONDS)
            if isinstance(answer, Exception):
                raise answer
            found = self._client.outputs(answer)
        return {name: int(each.flat[0]) for name, each in found.items()}

    def close(self) -> None:
        """Hang up."""
        if self._answers is not None:
            self._client.raw.stop_stream()
        self._client.close()


@pytest.fixture
def calls(server: Server) -> Iterator[Callable[..., Caller]]:
    """`calls(protocol, model)`: a caller, which is closed in the end."""
    with contextlib.ExitStack() as stack:

        def make(protocol: str, model: str) -> Caller:
            caller = Caller(server, protocol, model)
            stack.callback(caller.close)
            return caller

        yield make


@pytest.mark.parametrize("protocol", PROTOCOLS_AND_STREAM)
def test_each_sequence_stays_at_one_worker(calls: Callable[..., Caller], protocol: str) -> None:
    call = calls(protocol, "sums")
    ids = range(1, 5)  # as many as there are slots
    workers = {identity: call(identity, identity, start=True)["PID"] for identity in ids}
    assert len(set(workers.values())) == 2
    for turn in (2, 3):
        assert {i: call(i, i, end=turn == 3) for i in ids} == {i: {"SUM": turn * i, "PID": workers[i]} for i in ids}
    with pytest.raises(
        InferenceServerException, match="sequence 1 to model 'sums' must specify the START flag"
    ) as error:
        call(1, 1)
    if protocol != "stream":
        assert status_of(error.value) == INVALID[call.protocol]


def test_many_sequences_at_once_each_get_their_own_sums(server: Server) -> None:
    def run(number: int) -> list[int]:
        call = Caller(server, PROTOCOLS[number % 2], "sums")
        try:
            return [call(number, 100 + number, start=turn == 0, end=turn == 4)["SUM"] for turn in range(5)]
        finally:
            call.close()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(run, range(24))) == [[number * turn for turn in range(1, 6)] for number in range(24)]


def test_a_step_of_an_ensemble_may_keep_state(calls: Callable[..., Caller]) -> None:
    call = calls("grpc", "ensemble")
    workers = {identity: call(identity, identity, start=True)["PID"] for identity in (1, 2, 3)}
    for turn in (2, 3):
        found = {i: call(i, i, end=turn == 3) for i in workers}
        assert found == {i: {"SUM": turn * i, "PID": workers[i]} for i in workers}
    with pytest.raises(InferenceServerException, match="sequence 1 to model 'sums' must specify the START flag"):
        call(1, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sequences_may_have_names(calls: Callable[..., Caller], protocol: str) -> None:
    call = calls(protocol, "named")
    assert call(1, "a", start=True)["SUM"] == 1
    assert call(10, "ö", start=True)["SUM"] == 10
    assert call(2, "a", end=True)["SUM"] == 3
    assert call(20, "ö", end=True)["SUM"] == 30


def test_a_sequence_waits_for_a_slot_until_another_has_been_idle_for_too_long(calls: Callable[..., Caller]) -> None:
    call = calls("http", "brief")
    call(1, 1, start=True)
    assert call(1, 2, start=True, end=True)["SUM"] == 1
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        call(1, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sequence_does_not_wait_for_longer_than_its_timeout(calls: Callable[..., Caller], protocol: str) -> None:
    call = calls(protocol, "narrow")
    call(1, 1, start=True)
    with pytest.raises(
        InferenceServerException, match="timeout of the corresponding sequence has been expired"
    ) as error:
        call(1, 2, start=True, timeout=100_000)
    assert status_of(error.value) == UNAVAILABLE[protocol]
    assert call(1, 1, end=True)["SUM"] == 2


@pytest.mark.parametrize("backend", ["python", "onnxruntime", "pytorch"])
def test_the_server_keeps_the_state_of_each_sequence(calls: Callable[..., Caller], backend: str) -> None:
    call = calls("grpc", f"running_{backend}")
    name = "SUM__0" if backend == "pytorch" else "SUM"
    assert call(1, 1, start=True) == {name: 101}, "and the state is the server's own"
    assert call(5, 2, start=True) == {name: 105}
    assert call(1, 1) == {name: 102}
    assert call(5, 2, end=True) == {name: 110}
    assert call(7, 1, start=True) == {name: 107}, "a start resets the state"
    assert call(0, 1, end=True) == {name: 107}
    assert call(0, 3, start=True, end=True) == {name: 100}


def test_an_iterative_request_takes_as_many_executions_as_its_model_wants(server: Server) -> None:
    with Client("http", server) as client:
        before = client.statistics("steps")
        with ThreadPoolExecutor(4) as threads:
            found = threads.map(lambda count: _steps(server, count), [3, 5, 1, 4])
            assert list(found) == [3, 5, 1, 4]
        after = client.statistics("steps")
    assert after["inference_count"] - before["inference_count"] == 4
    executed = [sum(b["batch_size"] * b["compute_infer"]["count"] for b in s["batch_stats"]) for s in (before, after)]
    assert executed[1] - executed[0] == 13


def _steps(server: Server, count: int) -> int:
    with Client("http", server) as client:
        return int(client.infer("steps", {"COUNT": np.array([[count]], np.int32)})["OUT"].flat[0])


def test_an_iterative_request_of_a_decoupled_model_streams(server: Server) -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    with Client("grpc", server) as client:
        client.raw.start_stream(lambda result, error: answers.put(error or result))
        given = triton.InferInput("COUNT", [1, 1], "INT32").set_data_from_numpy(np.array([[40]], np.int32))
        client.raw.async_stream_infer("tokens", [given])
        found = [int(answers.get(timeout=SECONDS).as_numpy("OUT").flat[0]) for _ in range(40)]
        client.raw.stop_stream()
    assert found == list(range(1, 41))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_death_of_a_worker_is_told_to_its_sequences(calls: Callable[..., Caller], protocol: str) -> None:
    call = calls(protocol, "named")
    call(1, "a", start=True)
    call(1, "b", start=True)
    with pytest.raises(InferenceServerException, match="died while executing the request") as error:
        call(CRASH, "a")
    assert status_of(error.value) == UNAVAILABLE[protocol]
    for name in ("a", "b"):
        with pytest.raises(InferenceServerException, match=r"the START flag .*, which had its state, died"):
            call(1, name)
        assert call(3, name, start=True, end=True)["SUM"] == 3


# ------------------------------------------------------------------------------------------- changes of the server


@pytest.fixture
def own(new_server: Callable[..., Server]) -> Iterator[tuple[Server, Caller]]:
    """A server with two instances of `sums`, one slot each."""
    server = new_server()
    write_sums(server.repository, "sums", "max_sequence_idle_microseconds: 60000000", count=2, slots=1)
    with server:
        call = Caller(server, "http", "sums")
        yield server, call
        call.close()


def test_an_instance_that_goes_finishes_its_sequences(own: tuple[Server, Caller]) -> None:
    server, call = own
    workers = [call(1, identity, start=True)["PID"] for identity in (1, 2)]
    server.edit("count: 2", "count: 1", server.repository / "sums" / "config.pbtxt")
    until(lambda: "1 draining" in server.log(), SECONDS, "an instance is to go")
    assert [call(1, identity)["PID"] for identity in (1, 2)] == workers
    assert sorted(server.pids()) == sorted(workers)
    assert [call(1, identity, end=True)["SUM"] for identity in (1, 2)] == [3, 3]
    until(lambda: len(server.pids()) == 1, SECONDS, "it is gone")


def test_a_model_that_is_loaded_anew_tells_its_sequences(own: tuple[Server, Caller]) -> None:
    server, call = own
    call(1, 1, start=True)
    old = server.pids()
    server.edit("60000000", "50000000", server.repository / "sums" / "config.pbtxt")
    until(lambda: len(server.pids()) == 2 and not set(old) & set(server.pids()), SECONDS, "new workers serve")
    with pytest.raises(InferenceServerException, match=r"the START flag .*: the model was loaded anew"):
        call(1, 1)


def test_a_server_that_ends_lets_its_sequences_end_first(own: tuple[Server, Caller]) -> None:
    server, call = own
    call(1, 1, start=True)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: "draining" in server.log(), SECONDS, "the server ends")
    with pytest.raises(InferenceServerException, match="Server is stopping"):
        call(1, 2, start=True)
    assert call(1, 1)["SUM"] == 2
    assert server.process.poll() is None
    assert call(1, 1, end=True)["SUM"] == 3
    assert server.wait_for_exit() == 0

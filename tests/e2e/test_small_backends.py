"""The backends repeat, square and sequence, over a stream as Triton's clients of theirs speak to them."""

import time
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.support.clients import Client
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0
PARAMETER = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}\n'
REPEAT = f"""backend: "repeat"
model_transaction_policy {{ decoupled: true }}
input [ {tensor("IN", "TYPE_INT32")}, {tensor("DELAY", "TYPE_UINT32")}, {tensor("WAIT", "TYPE_UINT32", "[ 1 ]")} ]
output [ {tensor("OUT", "TYPE_INT32", "[ 1 ]")}, {tensor("IDX", "TYPE_UINT32", "[ 1 ]")} ]
{instances(1)}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("small"))
    write_model(made.repository, "repeat_int32", REPEAT)
    write_model(made.repository, "completed", 'backend: "repeat"')
    write_model(made.repository, "square_int32", 'backend: "square"')
    write_model(made.repository, "empty", 'backend: "square"\n' + PARAMETER.format("CUSTOM_EMPTY_COUNT", 2))
    write_model(made.repository, "fails", 'backend: "square"\n' + PARAMETER.format("CUSTOM_FAIL_COUNT", 1))
    write_model(made.repository, "slow", 'backend: "square"\n' + PARAMETER.format("CUSTOM_OUTPUT_DELAY_NS", 10**7))
    io = f"input [ {tensor('INPUT', 'TYPE_INT32', '[ 1 ]')} ]\noutput [ {tensor('OUTPUT', 'TYPE_INT32', '[ 1 ]')} ]\n"
    control = "control_input [ { name: %s control [ { kind: CONTROL_SEQUENCE_%s int32_false_true: [ 0, 1 ] } ] } ]"
    for name, strategy in (("direct", "direct { }"), ("oldest", "oldest { max_candidate_sequences: 4 }")):
        controls = " ".join(control % (f'"{kind}"', kind) for kind in ("START", "READY"))
        sequences = f"sequence_batching {{ {strategy} {controls} }}\n"
        write_model(made.repository, name, f'backend: "sequence"\nmax_batch_size: 4\n{io}{sequences}{instances(1)}')
    with made:
        yield made


def stream(server: Server, model: str, inputs: Mapping[str, Any], cancel_after: int = 0) -> Iterator[Any]:
    """The responses to one request; an error ends them. Cancels after so many."""
    told: SimpleQueue[Any] = SimpleQueue()
    with triton.InferenceServerClient(server.address("grpc")) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        tensors = []
        for name, array in inputs.items():
            tensors.append(triton.InferInput(name, [*array.shape], "INT32" if array.dtype == np.int32 else "UINT32"))
            tensors[-1].set_data_from_numpy(array)
        client.async_stream_infer(model, tensors, enable_empty_final_response=True)
        count = 0
        while True:
            result, error = told.get(timeout=SECONDS)
            if error is not None:
                yield error.message()
                return
            if result.get_response().parameters["triton_final_response"].bool_param:
                return
            yield result
            count += 1
            if count == cancel_after:
                client.stop_stream(cancel_requests=True)
                return


def repetition(values: list[int], delays: list[int], wait: int = 0) -> dict[str, Any]:
    return {
        "IN": np.array(values, np.int32),
        "DELAY": np.array(delays, np.uint32),
        "WAIT": np.array([wait], np.uint32),
    }


@pytest.mark.parametrize("model", ["repeat_int32", "completed"])
def test_repeat_answers_once_for_each_element(server: Server, model: str) -> None:
    assert not list(stream(server, model, repetition([], [])))
    began = time.monotonic()
    found = list(stream(server, model, repetition([4, 2, -7], [0, 20, 30])))
    assert time.monotonic() - began >= 0.05
    assert [int(r.as_numpy("OUT")[0]) for r in found] == [4, 2, -7]
    assert [int(r.as_numpy("IDX")[0]) for r in found] == [0, 1, 2]
    (error,) = stream(server, model, repetition([1, 2], [0]))
    assert "expected IN and DELAY shape to match, got [2] and [1]" in error


def test_repeat_waits_before_the_next_request_but_not_before_its_responses(server: Server) -> None:
    began = time.monotonic()
    first = stream(server, "repeat_int32", repetition([1, 2], [0, 0], 400))
    assert int(next(first).as_numpy("OUT")[0]) == 1
    assert len(list(stream(server, "repeat_int32", repetition([1], [0])))) == 1
    assert time.monotonic() - began >= 0.4
    assert len(list(first)) == 1


def test_square_answers_as_often_as_it_is_told(server: Server) -> None:
    for number in (0, 1, 5):
        found = list(stream(server, "square_int32", {"IN": np.array([number], np.int32)}))
        assert [int(r.as_numpy("OUT")[0]) for r in found] == [number] * number


def test_square_answers_without_outputs_or_fails_where_it_is_to(server: Server) -> None:
    found = list(stream(server, "empty", {"IN": np.array([3], np.int32)}))
    assert [len(r.get_response().outputs) for r in found] == [0, 0, 1]
    (error,) = stream(server, "fails", {"IN": np.array([3], np.int32)})
    assert "the model fails as it is configured to" in error


def test_square_stops_for_a_client_that_has_gone(server: Server) -> None:
    assert len(list(stream(server, "slow", {"IN": np.array([10**6], np.int32)}, cancel_after=2))) == 2
    with Client("http", server) as client:
        until(lambda: client.statistics("slow")["inference_stats"]["fail"]["count"] == 1, 30, "the request has ended")


def test_what_a_configuration_leaves_out_is_completed(server: Server) -> None:
    with Client("http", server) as client:
        declared, completed = (client.metadata(name) for name in ("repeat_int32", "completed"))
    assert declared["inputs"] == completed["inputs"]
    assert declared["outputs"] == completed["outputs"]


@pytest.mark.parametrize("model", ["direct", "oldest"])
def test_sequences_are_added_up_each_by_itself(server: Server, model: str) -> None:
    with Client("grpc", server) as client:

        def add(sequence: int, value: int, start: bool = False, end: bool = False) -> int:
            options = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
            return int(client.infer(model, {"INPUT": np.array([[value]], np.int32)}, **options)["OUTPUT"][0, 0])

        assert [add(1, 5, start=True), add(2, 100, start=True), add(1, 6), add(2, 11), add(1, 7, end=True)] == [
            *(5, 100, 11, 111, 18)
        ]
        assert add(1, 1, start=True, end=True) == 1
        assert add(2, 1, start=True) == 1
        assert add(2, 1, end=True) == 2

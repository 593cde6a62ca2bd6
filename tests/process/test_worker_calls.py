"""Models that call other models, in a real worker; the fake broker is all the other models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import (
    COMPLETE,
    Answer,
    Cancel,
    Consumed,
    ErrorCode,
    Execute,
    GetModelReady,
    Infer,
    LoadFailed,
    LoadModel,
    Part,
    Response,
    Result,
    UnloadModel,
)
from shm.ref import TensorRef
from shm.tensor import as_array
from tests.process.test_worker_python import CONFIG, model
from tests.support.worker import FakeBroker, item, tensor

DECOUPLED = {**CONFIG, "model_transaction_policy": {"decoupled": True}}
HELPERS = """
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
def ask(self, request, **changes):
    tensor = pb_utils.Tensor("X", request.inputs()[0].as_numpy())
    fields = {"inputs": [tensor], "requested_output_names": ["Y"], "model_name": "other", **changes}
    return pb_utils.InferenceRequest(**fields)
def answer(self, response):
    if response.has_error():
        return pb_utils.InferenceResponse(error=response.error())
    tensor = pb_utils.get_output_tensor_by_name(response, "Y")
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor.as_numpy())])
"""
CALL = "def execute(self, requests):\n    return [self.answer(self.ask(r).exec()) for r in requests]\n"


class Session:
    """A worker with one model, and the models that it calls."""

    def __init__(self, broker: FakeBroker, directory: Path, body: str, config: dict[str, Any] = CONFIG) -> None:
        self.broker = broker
        broker.loaded("python", model(directory, HELPERS + body), config)

    def start(self, *arrays: np.ndarray[Any, Any]) -> int:
        """One batch, with a request for each array; its number."""
        attempt = next(self.broker.attempts)
        items = [item(self.broker.ref("IN", array)) for array in arrays or (np.ones((1, 1), np.float32),)]
        self.broker.send(Execute(attempt, tuple(items)))
        return attempt

    def called(self) -> Infer:
        """The next call."""
        message = self.broker.wait_for("Infer")
        assert isinstance(message, Infer)
        return message

    def value(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        """An input of a call."""
        return as_array(ref.datatype, ref.shape, self.broker.regions.view(ref)).copy()

    def output(self, array: np.ndarray[Any, Any]) -> TensorRef:
        """An output of a called model, large ones in its arena until the worker gives them back."""
        if array.nbytes <= 1024:
            return self.broker.ref("Y", array)
        if not self.broker.arena.byte_size:
            self.broker.arena.open()
        return self.broker.arena.allocate(array.nbytes, "w").store("Y", "FP32", array.shape, array.tobytes())

    def held(self) -> int:
        """Outputs of called models that the worker has not given back."""
        self.broker.arena.collect()
        return len([block for _, block in self.broker.arena._lent.values() if block.reader])

    def respond(self, call: Infer, *arrays: np.ndarray[Any, Any], part: int = COMPLETE) -> None:
        """A called model answers."""
        outputs = tuple([self.output(array) for array in arrays])
        self.broker.send(Response(call.request, ErrorCode.OK, "", call.model, 1, outputs, {}, part))

    def refuse(self, call: Infer, code: ErrorCode, error: str, part: int = COMPLETE) -> None:
        """A call fails."""
        self.broker.send(Response(call.request, code, error, call.model, -1, (), {}, part))

    def results(self) -> tuple[Result, ...]:
        """What the batch is answered with."""
        results: tuple[Result, ...] = self.broker.wait_for("Executed").results
        return results

    def out(self) -> np.ndarray[Any, Any]:
        """The output of a batch of one request."""
        (result,) = self.results()
        return self.broker.arrays(result)["OUT"]


@pytest.mark.parametrize("size", [4, 100_000])
def test_tensors_by_reference_and_their_memory(tmp_path: Path, size: int) -> None:
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, CALL)
        for number in range(3):
            array = np.full((1, size), number, np.float32)
            attempt = session.start(array)
            call = session.called()
            assert (call.model, call.version, call.outputs, call.attempt) == ("other", -1, ("Y",), attempt)
            np.testing.assert_array_equal(session.value(call.inputs[0]), array)
            session.respond(call, array + 1)
            np.testing.assert_array_equal(session.out(), array + 1)
        session.start(np.zeros((1, 1), np.float32))
        session.respond(session.called(), np.zeros((1, 1), np.float32))
        session.out()
        assert session.held() == 0
        broker.seen.clear()
        broker.wait_for("Beat")
        assert broker.wait_for("Beat").shm_used == 0
        assert broker.stop() == 0


def test_an_output_stays_as_long_as_anything_looks_at_it(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    value = requests[0].inputs()[0].as_numpy()[0, 0]
    if value == 0:
        response = self.ask(requests[0]).exec()
        self.kept = pb_utils.get_output_tensor_by_name(response, "Y").as_numpy()[:, 1000:]
        self.kept[0, 0] = 5
    elif value == 1:
        self.kept = None
    out = np.zeros((1, 2), np.float32) if self.kept is None else self.kept[:, :2]
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)])]
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body)
        session.start(np.zeros((1, 1), np.float32))
        session.respond(session.called(), np.full((1, 5000), 7, np.float32))
        assert session.out().tolist() == [[5, 7]]
        assert session.held() == 1
        session.start(np.full((1, 1), 2, np.float32))
        assert session.out().tolist() == [[5, 7]]
        session.start(np.ones((1, 1), np.float32))
        assert session.out().tolist() == [[0, 0]]
        assert session.held() == 0


@pytest.mark.parametrize(
    ("code", "error", "part", "expected"),
    [
        (ErrorCode.INVALID_ARG, "too long", COMPLETE, (ErrorCode.INVALID_ARG, "too long")),
        (
            ErrorCode.INVALID_ARG,
            "unexpected inference output 'Y' for model 'other'",
            Part.FINAL,
            (
                ErrorCode.INTERNAL,
                "Model other - Error when running inference: unexpected inference output 'Y' for model 'other'",
            ),
        ),
        (
            ErrorCode.NOT_FOUND,
            "Request for unknown model: 'other' is not found",
            Part.FINAL,
            (
                ErrorCode.INTERNAL,
                "Model other - Error when running inference: Failed for execute the inference request. Model 'other' "
                "is not ready.",
            ),
        ),
        (
            ErrorCode.UNSUPPORTED,
            "BLS doesn't support models with decoupled transaction policy",
            Part.FINAL,
            (
                ErrorCode.INTERNAL,
                "Model other - Error when running inference: Model other is using the decoupled. The current BLS "
                "request call doesn't support models using the decoupled transaction policy. Please use "
                "'decoupled=True' argument to the 'exec' or 'async_exec' calls for decoupled models.'",
            ),
        ),
    ],
)
def test_errors_of_a_call(
    tmp_path: Path, code: ErrorCode, error: str, part: int, expected: tuple[ErrorCode, str]
) -> None:
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, CALL)
        session.start()
        session.refuse(session.called(), code, error, part)
        (result,) = session.results()
        assert (result.code, result.error) == expected


def test_a_region_that_is_gone(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, CALL)
        session.start()
        call = session.called()
        gone = TensorRef("Y", "FP32", (1, 1000), 4000, None, "tidepool-x-w9-0", 0, 1, 1)
        broker.send(Response(call.request, ErrorCode.OK, "", "other", 1, (gone,), {}))
        (result,) = session.results()
        assert (result.code, result.error) == (ErrorCode.UNAVAILABLE, "the output of model 'other' is gone")


def test_what_a_call_says(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    request = self.ask(
        requests[0], model_version=3, request_id="id", correlation_id="seq", flags=1, timeout=7,
        parameters={"a": 1, "b": "x", "c": True}, requested_output_names=[],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0), trace=requests[0].trace(),
    )
    assert json.loads(request.parameters()) == {"a": 1, "b": "x", "c": True}
    assert json.loads(requests[0].trace().get_context())["tracestate"] == "s=1"
    request.set_flags(3)
    return [self.answer(request.exec())]
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body)
        context = json.dumps({"traceparent": "00-1-2-01", "tracestate": "s=1"})
        received = item(broker.ref("IN", np.ones((1, 1), np.float32)), trace=context)
        broker.send(Execute(next(broker.attempts), (received,)))
        call = session.called()
        assert (call.version, call.request_id, call.correlation_id, call.flags) == (3, "id", "seq", 3)
        assert (call.timeout_us, call.parameters, call.outputs) == (7, {"a": 1, "b": "x", "c": True}, ())
        assert (call.traceparent, call.tracestate) == ("00-1-2-01", "s=1")
        session.respond(call, np.ones((1, 1), np.float32))
        session.out()


def test_asynchronous_calls_beside_each_other(tmp_path: Path) -> None:
    body = """
async def execute(self, requests):
    import asyncio
    calls = [self.ask(requests[0], model_name=f"m{n}").async_exec() for n in range(3)]
    responses = await asyncio.gather(*calls)
    late = self.ask(requests[0], model_name="late").async_exec()
    try:
        await asyncio.wait_for(late, 0.05)
    except TimeoutError:
        pass
    values = [pb_utils.get_output_tensor_by_name(r, "Y").as_numpy()[0, 0] for r in responses]
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([values], np.float32))])]
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body)
        session.start()
        calls = [session.called() for _ in range(3)]
        assert [call.model for call in calls] == ["m0", "m1", "m2"]
        for number in (2, 0, 1):
            session.respond(calls[number], np.full((1, 1), number, np.float32))
        late = session.called()
        assert broker.wait_for("Cancel") == Cancel(late.request)
        assert session.out().tolist() == [[0, 1, 2]]
        session.respond(late, np.ones((1, 5000), np.float32))
        broker.wait_for("Beat")
        broker.wait_for("Beat")
        assert session.held() == 0


def test_calls_from_a_decoupled_coroutine(tmp_path: Path) -> None:
    body = """
async def execute(self, requests):
    for request in requests:
        sender = request.get_response_sender()
        for number in range(2):
            sender.send(self.answer(await self.ask(request).async_exec()))
        sender.send(flags=self.FINAL)
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, DECOUPLED)
        session.start()
        for number in range(2):
            call = session.called()
            assert call.attempt == 0, "it holds no execute up"
            session.respond(call, np.full((1, 1), number, np.float32))
            responded = broker.wait_for("Responded")
            assert broker.arrays(responded.result)["OUT"].tolist() == [[number]]
        assert broker.wait_for("Responded").result.part == Part.FINAL


def test_a_stream_of_responses(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    iterator = self.ask(requests[0]).exec(decoupled=True)
    assert isinstance(iterator, pb_utils.ResponseIterator)
    first = [len(r.output_tensors()) for r in iterator]
    again = [r.output_tensors()[0].as_numpy()[0, 0] for r in iterator if r.output_tensors()]
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([first + again], np.float32))])]
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body)
        session.start()
        call = session.called()
        assert call.endpoint == ""
        for number in range(3):
            session.respond(call, np.full((1, 1), number, np.float32), part=Part.CONTENT)
            assert broker.wait_for("Consumed") == Consumed(call.request, 1)
        session.respond(call, part=Part.FINAL)
        assert session.out().tolist() == [[1, 1, 1, 0, 0, 1, 2]]


def test_a_stream_that_is_not_read_to_its_end_is_cancelled(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    iterator = self.ask(requests[0]).exec(decoupled=True)
    first = next(iter(iterator))
    return [self.answer(first)]
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body)
        session.start()
        call = session.called()
        session.respond(call, np.ones((1, 5000), np.float32), part=Part.CONTENT)
        assert session.out()[0, 0] == 1
        assert broker.wait_for("Cancel") == Cancel(call.request)
        session.respond(call, np.ones((1, 5000), np.float32), part=Part.CONTENT)
        session.respond(call, part=Part.FINAL)
        broker.wait_for("Beat")
        broker.wait_for("Beat")
        assert session.held() == 0


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("self.ask(requests[0], requested_output_names=[''])", "requested output cannot be an empty string"),
        ("self.ask(requests[0], correlation_id=1.5)", "Correlation ID must be an integer or string"),
        ("self.ask(requests[0], parameters={'a': []})", "Expect parameters values to have type bool/int/str"),
        ("self.ask(requests[0], inputs=[1])", "TypeError: an input must be a pb_utils.Tensor, not a int"),
        ("self.ask(requests[0]).async_exec()", "RuntimeError: no running event loop"),
        ("self.ask(requests[0]).is_cancelled()", "Only a request that the model has received has a client."),
        ("requests[0].exec()", "Only a request that the model has made can be executed."),
    ],
)
def test_wrong_use(tmp_path: Path, expression: str, text: str) -> None:
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, f"def execute(self, requests):\n    {expression}\n")
        session.start()
        (result,) = session.results()
        assert text in result.error


def test_calls_before_the_model_is_loaded(tmp_path: Path) -> None:
    body = (
        "def initialize(self, args):\n"
        "    r = pb_utils.InferenceRequest(inputs=[], requested_output_names=[], model_name='m')\n"
        "    r.exec()\n"
    )
    with FakeBroker() as broker:
        failed = broker.load("python", model(tmp_path, body), CONFIG)
        assert isinstance(failed, LoadFailed)
        assert "TritonModelException: BLS is only supported during the 'execute' function." in failed.error


def test_model_control(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    out = [pb_utils.is_model_ready("a"), pb_utils.is_model_ready("b", "2")]
    pb_utils.load_model("a")
    pb_utils.load_model("a", config="{}", files={"file:1/model.py": b"x"})
    pb_utils.unload_model("a", True)
    errors = []
    for call in (
        lambda: pb_utils.load_model("z"),
        lambda: pb_utils.load_model("z", files={"file:1/x": b""}),
        lambda: pb_utils.is_model_ready("a", "one"),
    ):
        try:
            call()
        except pb_utils.TritonModelException as error:
            errors.append(str(error))
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([out]), ),
        pb_utils.Tensor("ERRORS", np.array(errors, dtype=np.object_))])]
"""
    with FakeBroker() as broker:
        outputs = [tensor("OUT", "TYPE_BOOL", -1), tensor("ERRORS", "TYPE_STRING", -1)]
        session = Session(broker, tmp_path, body, CONFIG | {"output": outputs})
        session.start()
        ready = broker.wait_for("GetModelReady")
        assert ready == GetModelReady(ready.request, "a", -1)
        broker.send(Answer(ready.request, ErrorCode.OK, "", {"ready": True}))
        ready = broker.wait_for("GetModelReady")
        assert ready == GetModelReady(ready.request, "b", 2)
        broker.send(Answer(ready.request, ErrorCode.OK, "", {"ready": False}))
        load = broker.wait_for("LoadModel")
        assert load == LoadModel(load.request, "a", "", {})
        broker.send(Answer(load.request, ErrorCode.OK, "", None))
        load = broker.wait_for("LoadModel")
        assert load == LoadModel(load.request, "a", "{}", {"1/model.py": b"x"})
        broker.send(Answer(load.request, ErrorCode.OK, "", None))
        unload = broker.wait_for("UnloadModel")
        assert unload == UnloadModel(unload.request, "a", True)
        broker.send(Answer(unload.request, ErrorCode.OK, "", None))
        load = broker.wait_for("LoadModel")
        error = "failed to load 'z', failed to poll from model repository"
        broker.send(Answer(load.request, ErrorCode.INTERNAL, error, None))
        (result,) = session.results()
        arrays = broker.arrays(result)
        assert arrays["OUT"].tolist() == [[True, False]]
        assert [text.decode() for text in arrays["ERRORS"]] == [
            "Failed to load model: Failed to process the request for model 'model_0_0', message: failed to load 'z', "
            "failed to poll from model repository",
            "Failed to load model: `files` need `config` to be given, too",
            "failed to get model version from 'one': not a number",
        ]

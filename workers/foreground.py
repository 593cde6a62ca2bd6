"""`python -m broker run`: one worker without a server, in the foreground, where a debugger works.

The worker, its backend and its shared memory are the real ones. What stands at the other end of the connection is here:
it has a model loaded, one request executed, prints what comes back, and has no other models to call.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypedDict

import msgspec
import numpy as np

from broker.child import Place
from broker.messages import (
    Answer,
    Credit,
    DeclareMetric,
    ErrorCode,
    Execute,
    Executed,
    GetMetricValue,
    Infer,
    Item,
    Load,
    Loaded,
    LoadFailed,
    Log,
    Message,
    Part,
    RegionClosed,
    RegionOpened,
    Responded,
    Response,
    Result,
    Stop,
    describe_code,
)
from broker.validation import Rejected, Signature, restore_shape, validate
from configs.description import ModelDescription, TensorSpec
from shm import region
from shm.ref import TensorRef
from shm.tensor import Regions, as_array
from workers import tensor_files
from workers.connection import Connection, Work
from workers.environments import EnvironmentFailed
from workers.tensor_files import Array, Unreadable

_READER = "run"
_ALONE = "there is no server here: python -m broker run executes one model only"


class Order(NamedTuple):
    """What is to be done; paths are `""` where there is none."""

    load: Load
    description: dict[str, Any]
    input: str
    output: str
    replay: str


class _Recorded(TypedDict):
    """What is read of a record (`workers.recorder`)."""

    inputs: list[dict[str, Any]]
    outputs: list[str]
    request_id: str
    parameters: dict[str, Any]
    correlation_id: int | str
    flags: int
    priority: int
    timeout_us: int


class Foreground(Connection):
    """The worker's connection, and everything behind it. Nothing of its parent's is used but the interface."""

    def __init__(self, order: Order, handle: Callable[[Message], None]) -> None:
        """`handle` is the worker's, for what comes beside its work."""
        self.status = 0
        self._order = order
        self._handle = handle
        self._regions = Regions()
        self._outputs: dict[str, Array] = {}
        self._responses = 0
        self._loaded: Loaded | LoadFailed | None = None
        self._signature: Signature
        self._is_answered = threading.Event()
        self._later: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._life = self._live()
        threading.Thread(target=self._serve, name="foreground", daemon=True).start()

    # ------------------------------------------------------------------------------------------- the interface

    def next(self) -> Work:
        """What the worker does next."""
        return next(self._life)

    def send(self, message: Message) -> None:  # one case per message
        """The worker says something."""
        match message:
            case Log(level, text):
                sys.stderr.write(f"{level} {text}\n")
            case RegionOpened(name):
                self._regions.open(name)
                region.unlink(name)  # nothing is left in /dev/shm, however we end
            case RegionClosed(name):
                self._regions.close(name)
            case Loaded() | LoadFailed():
                self._loaded = message
            case Executed():
                self._executed(message)
            case Responded(attempt, item, result):
                self._show(result)
                self._later.put(lambda: self._handle(Credit(attempt, item, 1)))
            case Infer():
                refusal = Response(message.request, ErrorCode.UNAVAILABLE, _ALONE, message.model, 1, (), {})
                self._later.put(lambda: self._handle(refusal))
            case _ if hasattr(message, "request"):
                self._handle(_answer(message))
            case _:
                pass

    def wait_for(self, is_done: Callable[[], bool]) -> None:
        """Questions are answered at once."""

    def flush(self) -> None:
        """Nothing waits."""

    def post(self, call: Callable[[], None]) -> None:
        """Done by a thread that holds no lock."""
        self._later.put(call)

    def share(self) -> None:
        """It always is."""

    def close(self) -> None:
        """The end."""
        sys.stdout.flush()

    def _serve(self) -> None:
        while True:
            self._later.get()()

    # ------------------------------------------------------------------------------------------- what happens

    def _live(self) -> Iterator[Work]:
        began = time.monotonic()
        yield self._order.load
        if isinstance(self._loaded, Loaded):
            _say(f"load: {time.monotonic() - began:.4f} s")
            yield from self._request(self._loaded)
        elif self._loaded is not None:
            self._fail(f"the model cannot be loaded: {describe_code(self._loaded.code)}: {self._loaded.error}")
        yield Stop("done")

    def _request(self, loaded: Loaded) -> Iterator[Work]:
        """The request, if there is one, to its last response."""
        self._signature = signature(self._order, loaded)
        try:
            item = self._item()
        except Rejected as error:
            self._fail(f"{error}\nthe model's inputs: {_described(self._signature)}")
            return
        except (Unreadable, OSError) as error:
            self._fail(str(error))
            return
        if item is None:
            return
        yield Execute(1, (item,))
        self._is_answered.wait()
        if self._order.output:
            try:
                tensor_files.save(Path(self._order.output), self._outputs)
            except OSError as error:
                self._fail(str(error))

    def _item(self) -> Item | None:
        """The request; None: the model is only loaded. Raises Unreadable, Rejected, OSError."""
        if self._order.replay:
            item = recorded(Path(self._order.replay))
            is_reshaped = any(spec.reshape is not None for spec in self._signature.inputs)
            return item if is_reshaped else self._checked(item)  # it is recorded as the backend got it
        if not self._order.input:
            return None
        declared = {spec.name: spec.datatype for spec in self._signature.inputs}
        arrays = tensor_files.load(Path(self._order.input))
        refs = [tensor_files.reference(name, array, declared.get(name, "")) for name, array in arrays.items()]
        return self._checked(Item("", tuple(refs), (), {}, 0, 0, 0, 0, _READER))

    def _checked(self, item: Item) -> Item:
        """The request as a worker gets it from the broker. Raises Rejected."""
        name, version = self._order.load.model, self._order.load.version
        rest = (item.parameters, item.correlation_id, item.flags, item.priority, item.timeout_us, False, 0.0)
        request = Infer(1, name, version, item.request_id, item.inputs, item.outputs, *rest)
        return item._replace(inputs=validate(self._signature, request).inputs)

    def _executed(self, message: Executed) -> None:
        began, ready, computed, done = (time / 1e9 for time in message.times)
        parts = f"inputs {ready - began:.4f}, model {computed - ready:.4f}, outputs {done - computed:.4f}"
        _say(f"execute: {done - began:.4f} s ({parts})")
        for result in message.results:
            if result.part != Part.NONE:
                self._show(result)

    def _show(self, result: Result) -> None:
        """Print a response, and keep its outputs: those of later ones as NAME.1, NAME.2 and so on."""
        if result.code != ErrorCode.OK:
            self._fail(f"{describe_code(result.code)}: {result.error}")
        elif result.part & Part.CONTENT:
            suffix = f".{self._responses}" if self._responses else ""
            self._responses += 1
            if result.parameters:
                _say(f"parameters: {json.dumps(result.parameters)}")
            for ref in result.outputs:
                self._take(restore_shape(self._signature, ref), suffix)
        if result.part & Part.FINAL:
            self._is_answered.set()

    def _take(self, ref: TensorRef, suffix: str) -> None:
        array = as_array(ref.datatype, ref.shape, self._regions.view(ref)).copy()
        self._regions.mark_done(ref)
        self._outputs[f"{ref.name}{suffix}"] = array
        _say(f"{ref.name}{suffix}: {ref.datatype} {list(ref.shape)}\n{array}")

    def _fail(self, text: str) -> None:
        self.status = 1
        sys.stdout.flush()
        sys.stderr.write(f"error: {text}\n")


def _answer(message: Any) -> Answer:
    """What the server says to a question."""
    if isinstance(message, DeclareMetric | GetMetricValue):
        return Answer(message.request, ErrorCode.OK, "", 0.0 if isinstance(message, GetMetricValue) else None)
    return Answer(message.request, ErrorCode.UNAVAILABLE, _ALONE, None)


def signature(order: Order, loaded: Loaded) -> Signature:
    """What the model accepts, with what it has found itself."""
    description = ModelDescription.from_wire(order.description)
    return Signature(
        description.name,
        int(loaded.config.get("max_batch_size", description.max_batch_size)),
        (*description.inputs, *[TensorSpec(*declared) for declared in loaded.inputs]),
        (*description.outputs, *[TensorSpec(*declared) for declared in loaded.outputs]),
    )


def _described(model: Signature) -> str:
    """The inputs for people."""
    lead = (-1,) if model.max_batch_size else ()
    shapes = ["any shape" if spec.dims is None else [*lead, *spec.dims] for spec in model.inputs]
    specs = zip(model.inputs, shapes, strict=True)
    return ", ".join(f"{spec.name} {spec.datatype or 'ANY'} {shape}" for spec, shape in specs)


def recorded(path: Path) -> Item:
    """The request of a record: `path` is its .json, beside the .npz. Raises Unreadable, OSError."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Recorded)
        arrays = tensor_files.load(path.with_suffix(".npz"))
        refs = []
        for tensor in record["inputs"]:
            data = arrays[tensor["name"]].tobytes()
            refs.append(TensorRef(tensor["name"], tensor["datatype"], tuple(tensor["shape"]), len(data), data))
    except (KeyError, msgspec.MsgspecError) as error:
        raise Unreadable(f"{path} is no recorded request: {error}") from None
    rest = (record["correlation_id"], record["flags"], record["priority"], record["timeout_us"])
    return Item(
        record["request_id"], tuple(refs), tuple(record["outputs"]), record["parameters"], *rest, reader=_READER
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """`python -P -m workers.foreground DESCRIPTOR [entered]`: the order is a file that has been inherited."""
    descriptor = int(sys.argv[1])
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        order = msgspec.msgpack.decode(file.read(), type=Order)
    environment = order.description["environment"]
    if environment is not None and sys.argv[2:] != ["entered"]:
        from workers.environments.enter import Environment, enter  # noqa: PLC0415  # not needed by most

        try:
            enter(Environment(**environment), __spec__.name, [str(descriptor), "entered"])
        except (EnvironmentFailed, OSError) as error:
            sys.exit(f"error: {error}")
    from workers.worker import Worker  # noqa: PLC0415  # where its framework lies is known now

    np.set_printoptions(linewidth=120)
    status = os.memfd_create("tidepool-status", os.MFD_CLOEXEC)
    os.ftruncate(status, os.sysconf("SC_PAGESIZE"))
    made: list[Foreground] = []

    def connect(handle: Callable[[Message], None], _beat: Callable[[], None]) -> Connection:
        made.append(Foreground(order, handle))
        return made[0]

    Worker(Place("", _READER, f"run{os.getpid()}", status), connect=connect).run()
    sys.exit(made[0].status)


if __name__ == "__main__":
    main()

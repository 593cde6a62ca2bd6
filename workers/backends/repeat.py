"""The repeat backend: a decoupled model that answers once for every element of `IN`, at its own pace."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from broker.messages import ErrorCode, Item
from workers.backend import IO, Execution, Host, Interface
from workers.backends.given import interface
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome, Output, Response
from workers.streams import Stream

Array = np.ndarray[Any, Any]

INPUTS = (IO("IN", "INT32", (-1,)), IO("DELAY", "UINT32", (-1,)), IO("WAIT", "UINT32", (1,)))
OUTPUTS = (IO("OUT", "INT32", (1,)), IO("IDX", "UINT32", (1,)))


class RepeatBackend:
    """For clients of streams: `DELAY` are the milliseconds before each response. The instance takes the next request
    after `WAIT` milliseconds, while responses may still be under way."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing to log."""
        self._model = model
        self._inputs = host.inputs
        self._streams = host.streams

    def load(self) -> Interface:
        """What the configuration has to be, or becomes."""
        if self._model.max_batch_size:
            text = f"unable to load model '{self._model.name}', the backend 'repeat' does not support batching"
            raise BackendError(ErrorCode.INVALID_ARG, text)
        return interface(self._model, INPUTS, OUTPUTS, is_decoupled=True)

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome | None]:
        """Begin to answer, each request on a thread of its own."""
        outcomes: list[Outcome | None] = []
        for index, item in enumerate(requests):
            try:
                values, delays, wait = self._read(item)
            except BackendError as error:
                outcomes.append(error)
                continue
            stream = self._streams.open(execution.attempt, index, item, True)
            threading.Thread(target=answer, args=(stream, values, delays), name="repeat", daemon=True).start()
            time.sleep(wait)
            outcomes.append(None)
        return outcomes

    def unload(self) -> None:
        """Every stream has ended by now."""

    def _read(self, item: Item) -> tuple[Array, Array, float]:
        """The elements, the seconds before each of them, and those before the next request. Raises BackendError."""
        given = {ref.name: self._inputs.private(ref) for ref in item.inputs}
        values, delays, wait = (given[io.name] for io in INPUTS)
        if values.shape != delays.shape:
            text = f"expected IN and DELAY shape to match, got {[*values.shape]} and {[*delays.shape]}"
            raise BackendError(ErrorCode.INVALID_ARG, text)
        return values, delays / 1000, float(wait[0]) / 1000


def answer(stream: Stream, values: Array, delays: Array) -> None:
    """One response for each value, then the end; a client that has gone ends it at once."""
    for index, (value, delay) in enumerate(zip(values, delays, strict=True)):
        time.sleep(delay)
        if stream.is_cancelled:
            break
        number = np.uint32(index)
        outputs = [Output("OUT", "INT32", (1,), value.tobytes()), Output("IDX", "UINT32", (1,), number.tobytes())]
        stream.send(Response(outputs, {}), False)
    stream.send(None, True)

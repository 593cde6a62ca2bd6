"""The square backend: a decoupled model that answers n with n responses, each of them n."""

import threading
import time
from collections.abc import Sequence

from broker.messages import ErrorCode, Item
from workers.backend import IO, Execution, Host, Interface
from workers.backends.given import interface
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome, Output, Response
from workers.streams import Stream

INPUTS = (IO("IN", "INT32", (1,)),)
OUTPUTS = (IO("OUT", "INT32", (1,)),)


class SquareBackend:
    """For clients of streams. Parameters: `CUSTOM_INFER_DELAY_NS` and `CUSTOM_OUTPUT_DELAY_NS` go by before each
    response, `CUSTOM_CANCEL_DELAY_NS` before a cancelled request ends; so many first responses as `CUSTOM_EMPTY_COUNT`
    says are without outputs; with a `CUSTOM_FAIL_COUNT` the first is an error, and the last."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing to log."""
        self._model = model
        self._inputs = host.inputs
        self._streams = host.streams
        self._delay = self._cancel_delay = 0.0
        self._empty = 0
        self._fails = False

    def load(self) -> Interface:
        """What the configuration has to be, or becomes."""
        model = self._model
        self._delay = (model.integer("CUSTOM_INFER_DELAY_NS") + model.integer("CUSTOM_OUTPUT_DELAY_NS")) / 1e9
        self._cancel_delay = model.integer("CUSTOM_CANCEL_DELAY_NS") / 1e9
        self._empty = model.integer("CUSTOM_EMPTY_COUNT")
        self._fails = model.integer("CUSTOM_FAIL_COUNT") > 0
        return interface(model, INPUTS, OUTPUTS, is_decoupled=True)

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome | None]:
        """Begin to answer, each request on a thread of its own."""
        outcomes: list[Outcome | None] = []
        for index, item in enumerate(requests):
            try:
                (number,) = self._inputs.private(item.inputs[0]).reshape(-1)
            except BackendError as error:
                outcomes.append(error)
                continue
            stream = self._streams.open(execution.attempt, index, item, True)
            response = Response([Output("OUT", "INT32", item.inputs[0].shape, number.tobytes())], {})
            threading.Thread(target=self._answer, args=(stream, int(number), response), daemon=True).start()
            outcomes.append(None)
        return outcomes

    def unload(self) -> None:
        """Every stream has ended by now."""

    def _answer(self, stream: Stream, number: int, response: Response) -> None:
        for index in range(number):
            time.sleep(self._delay)
            if stream.is_cancelled:
                time.sleep(self._cancel_delay)
                stream.fail(BackendError(ErrorCode.CANCELLED, "cancelled"))
                return
            if self._fails:
                stream.fail(BackendError(ErrorCode.UNKNOWN, "the model fails as it is configured to"))
                return
            stream.send(Response([], {}) if index < self._empty else response, False)
        stream.send(None, True)

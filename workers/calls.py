"""What a worker asks of the server while its model runs: inference by other models, and questions."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from broker.digest import digest
from broker.messages import Answer, CachedRead, Cancel, Consumed, ErrorCode, Infer, Message, Part, Response
from shm.arena import Block
from shm.ref import TensorRef
from shm.tensor import Regions
from workers.connection import Connection
from workers.outcome import Output
from workers.outputs import Outputs


class Reply(NamedTuple):
    """A response to a call. `data` are its outputs' bytes, in memory that goes back when the last view of it goes."""

    response: Response
    data: tuple[np.ndarray[Any, Any], ...]


Take = Callable[[Reply], None]
"""Gets the replies to a call, on the I/O thread."""


class _Pending(NamedTuple):
    take: Take
    blocks: list[Block]


class Calls:
    """The calls of one worker. Any thread may make them; `respond` and `answer` are for the I/O thread."""

    def __init__(self, connection: Connection, outputs: Outputs, regions: Regions) -> None:
        """No call yet."""
        self.attempt = 0  # that the main thread executes; 0: none
        self.is_decoupled = False
        self.cached: frozenset[str] = frozenset()  # models whose answers may be
        self._connection = connection
        self._outputs = outputs
        self._regions = regions
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._questions: dict[int, SimpleQueue[Answer]] = {}

    def infer(self, request: Infer, inputs: Sequence[Output], take: Take) -> int:
        """Call a model; `request` lacks its number, its inputs and its time. The call's number. Raises ArenaFull."""
        self._connection.share()
        number = next(self._numbers)
        refs, blocks = self._outputs.lend(inputs)
        self._pending[number] = _Pending(take, blocks)
        if request.model in self.cached:
            contents = iter(inputs)
            request = request._replace(digest=digest(request._replace(inputs=refs), lambda _: next(contents).data))
        waits = not self.is_decoupled or threading.current_thread() is threading.main_thread()
        self._connection.send(
            request._replace(
                request=number,
                inputs=refs,
                received=time.monotonic(),
                attempt=self.attempt if waits else 0,  # a decoupled model's execute does not wait for its threads
            )
        )
        return number

    def consumed(self, number: int) -> None:
        """The model has taken one more response of a stream."""
        self._connection.send(Consumed(number, 1))

    def abandon(self, number: int) -> None:
        """Nobody waits for the rest of a call any more. Takes no lock."""
        pending = self._pending.get(number)
        if pending is not None:
            self._pending[number] = pending._replace(take=lambda reply: None)
            self._connection.send(Cancel(number))

    def cancel(self, number: int) -> None:
        """Ask the called model to stop; what it sends until then is still taken."""
        if number in self._pending:
            self._connection.send(Cancel(number))

    def ask(self, question: Callable[[int], Message]) -> Answer:
        """Ask the server, and wait."""
        number = next(self._numbers)
        answers: SimpleQueue[Answer] = SimpleQueue()
        self._questions[number] = answers
        self._connection.send(question(number))
        self._connection.wait_for(lambda: not answers.empty())
        return answers.get()

    def tell(self, message: Message) -> None:
        """Tell the server something that it does not answer. Takes no lock."""
        self._connection.send(message)

    def respond(self, response: Response) -> None:
        """A response to a call has come."""
        pending = self._pending.get(response.request)
        if pending is None:
            return
        try:
            reply = Reply(response, tuple([self._held(ref) for ref in response.outputs]))
        except (KeyError, ValueError):
            error = f"the output of model '{response.model}' is gone"
            reply = Reply(response._replace(code=ErrorCode.UNAVAILABLE, error=error, outputs=()), ())
        if response.part & Part.FINAL:
            del self._pending[response.request]
            self._outputs.give_back(pending.blocks)
        pending.take(reply)

    def answer(self, answer: Answer) -> None:
        """The answer to a question has come."""
        waiting = self._questions.pop(answer.request, None)
        if waiting is not None:
            waiting.put(answer)

    def _held(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        if ref.data is not None:
            return np.frombuffer(bytearray(ref.data), np.uint8)
        array: np.ndarray[Any, Any] = np.asarray(_Held(self._regions, ref, self.tell))
        return array


class _Held:
    """Another worker's block, for numpy: arrays over it refer to this object, whose end gives the block back."""

    def __init__(self, regions: Regions, ref: TensorRef, tell: Callable[[Message], None]) -> None:
        self._regions = regions
        self._tell = tell
        self._ref = ref
        self._bytes = np.frombuffer(regions.view(ref), np.uint8)
        self.__array_interface__ = self._bytes.__array_interface__

    def __del__(self) -> None:
        """Takes no lock: this may be called anywhere."""
        if hasattr(self, "_bytes") and self._ref.generation < 0:
            self._tell(CachedRead(-self._ref.generation))
        elif hasattr(self, "_bytes"):
            self._regions.mark_done(self._ref)

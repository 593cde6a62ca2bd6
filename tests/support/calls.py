"""Requests to the model `commands` from many threads."""

from concurrent.futures import Future, ThreadPoolExecutor

from tests.support.clients import Array, Client
from tests.support.repository import Commands
from tests.support.server import Server


class Calls:
    """Each request has a thread and a connection of its own."""

    def __init__(self, server: Server, model: Commands, batched: bool = False) -> None:
        """`batched`: the model's tensors have a batch dimension."""
        self._server, self._model, self._batched = server, model, batched
        self._threads = ThreadPoolExecutor(32)

    def send(self, command: int, argument: int = 0, protocol: str = "http") -> Future[Array]:
        """Have a request sent; its answer is `[argument, process id of the worker]`."""
        return self._threads.submit(self._ask, command, argument, protocol)

    def _ask(self, command: int, argument: int, protocol: str) -> Array:
        with Client(protocol, self._server) as client:
            answer = client.infer(self._model.name, {"IN": self._model.order(command, argument, self._batched)})["OUT"]
        return answer.reshape(2)

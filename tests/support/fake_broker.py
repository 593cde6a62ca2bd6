"""A broker for tests of frontends: a thread with the real socket and shared memory, and models that only echo."""

import itertools
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from broker.messages import (
    Answer,
    Cancel,
    Directory,
    ErrorCode,
    GetMetrics,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetServerReady,
    GetStatistics,
    Hello,
    Infer,
    Message,
    ProtocolError,
    RegionOpened,
    Response,
    Stop,
    Welcome,
)
from broker.transport import Router
from shm.arena import INLINE, Arena, ArenaSettings, inline
from shm.ref import TensorRef
from shm.region import name_for, sweep
from shm.tensor import Regions

SECONDS = 30.0
"""How long anything may take."""
OPTIONS: dict[str, Any] = {
    "id": "fake",
    "version": "1.2.3",
    "exit_timeout_secs": 5,
    "http_max_input_size": 64 << 20,
}
ARENA = (1 << 20, 16 << 20, 1 << 30)


class FakeBroker:
    """Use as a context manager; `frontend` starts processes, `seen` is everything that they have sent.

    Models: `echo` answers with its inputs (a raw request's input is FP32 `INPUT`), `slow` when `answer_slow` is called
    or the request is cancelled, `broken` with an error; all others are unknown.
    """

    def __init__(self, **options: Any) -> None:
        self.seen: list[Message] = []
        self.options = OPTIONS | options
        self.metrics: list[dict[str, Any]] = []
        self._regions = Regions()
        self._directory = tempfile.TemporaryDirectory(prefix="tp-")
        self._server = os.urandom(4).hex()
        self._commands: list[Callable[[], None]] = []
        self._slow: dict[tuple[str, int], Infer] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._tokens = (f"f{n}" for n in itertools.count())

    def __enter__(self) -> "FakeBroker":
        self._path = Path(self._directory.name) / "s"
        self._router = Router(self._path)
        self._announced: list[str] = []
        names = (name_for(self._server, "w", number) for number in itertools.count())
        self._arena = Arena(ArenaSettings("fake", *ARENA), names, self._announced.append, lambda _: None)
        self._arena.open()
        self._ends = False
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait(SECONDS)
        self._ends = True
        self._thread.join(SECONDS)
        self._router.close()
        sweep(self._server)
        self._directory.cleanup()

    # ------------------------------------------------------------------------------------------- processes

    def frontend(self, role: str, program: str = "", stdout: int | None = None) -> "Frontend":
        """Start `python -m frontends.ROLE`, or else `program`, with a listening socket and wait for its Hello."""
        listener = socket.create_server(("127.0.0.1", 0))
        token = next(self._tokens)
        descriptor = listener.fileno()
        command = [sys.executable, "-P", *(["-c", program] if program else ["-m", f"frontends.{role}"])]
        place = [str(self._path), token, self._server, str(os.getpid()), str(descriptor)]
        process = subprocess.Popen([*command, *place], pass_fds=(descriptor,), stdout=stdout)
        self._processes.append(process)
        address = "{}:{}".format(*listener.getsockname())
        listener.close()
        self.wait_for(lambda message: type(message) is Hello and message.pid == process.pid)
        return Frontend(process, token, address)

    def stop(self, token: str) -> None:
        """Tell a frontend to stop."""
        self._commands.append(lambda: self._router.send(token, [Stop("test")]))

    def answer_slow(self) -> None:
        """Answer all requests to `slow`, without outputs."""
        self._commands.append(self._answer_slow)

    def wait_for(self, matches: Callable[[Message], bool]) -> Any:
        """A message among `seen`, which may still be on its way."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for message in self.seen:
                if matches(message):
                    return message
            time.sleep(0.005)
        raise AssertionError(f"not seen; last were {self.seen[-5:]}")

    @property
    def lent_blocks(self) -> int:
        """Output blocks that their readers have not given back."""
        self._arena.collect()
        return self._arena.lent_blocks

    # ------------------------------------------------------------------------------------------- the loop

    def _loop(self) -> None:
        while not self._ends:
            if not self._router.has_more():
                select.select([self._router.fileno()], [], [], 0.01)
            for token, messages in self._router.receive():
                assert not isinstance(messages, ProtocolError), messages
                for message in messages:
                    for answer in self._handle(token, message):
                        self._router.send(token, [answer])
                    self.seen.append(message)
            while self._commands:
                self._commands.pop(0)()

    def _handle(self, token: str, message: Message) -> list[Message]:
        match message:
            case Hello():
                regions = [RegionOpened(name) for name in self._announced]
                directory = Directory({"echo": "fake"}, {"fake": ARENA, "": ARENA})
                return [Welcome(self.options), directory, *regions]
            case RegionOpened(name):
                self._regions.open(name)
            case Infer():
                return self._infer(token, message)
            case Cancel(number):
                slow = self._slow.pop((token, number))
                return [Response(number, ErrorCode.CANCELLED, "", slow.model, 1, (), {})]
            case (
                GetServerReady()
                | GetModelReady()
                | GetModelMetadata()
                | GetModelConfig()
                | GetStatistics()
                | GetMetrics()
            ):
                return [self._answer(message)]
            case _:
                pass
        return []

    def _answer_slow(self) -> None:
        for (token, number), request in self._slow.items():
            self._router.send(token, [Response(number, ErrorCode.OK, "", request.model, 1, (), {})])
        self._slow.clear()

    def _infer(self, token: str, request: Infer) -> list[Message]:
        known = len(self._announced)
        match request.model:
            case "echo":
                inputs = [_described(ref) if request.is_raw else ref for ref in request.inputs]
                chosen = [ref for ref in inputs if not request.outputs or ref.name in request.outputs]
                outputs = tuple([self._copy(token, ref) for ref in chosen])
                response = Response(request.request, ErrorCode.OK, "", "echo", 1, outputs, request.parameters)
            case "slow":
                self._slow[token, request.request] = request
                return []
            case "broken":
                response = Response(request.request, ErrorCode.INTERNAL, "it broke", "broken", 1, (), {})
            case name:
                response = Response(request.request, ErrorCode.NOT_FOUND, unknown(name), name, 1, (), {})
        return [*[RegionOpened(name) for name in self._announced[known:]], response]

    def _copy(self, token: str, ref: TensorRef) -> TensorRef:
        """An output with an input's bytes."""
        data = bytes(self._regions.view(ref))
        if len(data) <= INLINE:
            return inline(ref.name, ref.datatype, ref.shape, data)
        return self._arena.allocate(len(data), token).store(ref.name, ref.datatype, ref.shape, data)

    def _answer(self, question: Any) -> Answer:
        number = question.request
        model = getattr(question, "model", "echo")
        match question:
            case GetServerReady():
                content: Any = {"live": True, "ready": True}
            case GetModelReady():
                content = {"ready": model == "echo"}
            case GetMetrics():
                content = self.metrics
            case GetStatistics():
                content = {"model_stats": [{"name": model or "every", "version": "1"}]}
            case _ if model not in {"echo", "slow", "broken"}:
                return Answer(number, ErrorCode.NOT_FOUND, unknown(model), None)
            case GetModelConfig():
                content = {"name": model, "max_batch_size": 0}
            case _:
                content = {"name": model, "versions": ["1"], "platform": "fake", "inputs": [], "outputs": []}
        return Answer(number, ErrorCode.OK, "", content)


class Frontend(NamedTuple):
    """A frontend process of a FakeBroker."""

    process: "subprocess.Popen[bytes]"
    token: str
    address: str


def unknown(model: str) -> str:
    return f"Request for unknown model: '{model}' is not found"


def _described(raw: TensorRef) -> TensorRef:
    data = None if raw.data is None else raw.data[4:]
    return raw._replace(name="INPUT", datatype="FP32", shape=(raw.byte_size // 4,), data=data)

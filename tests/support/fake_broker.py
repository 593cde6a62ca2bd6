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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from broker.client_regions import ClientRegions
from broker.effects import Send
from broker.messages import (
    STREAM_CREDIT,
    Answer,
    Cancel,
    ClientRegion,
    Consumed,
    Directory,
    ErrorCode,
    GetLabels,
    GetMetrics,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetRegionStatus,
    GetRepositoryIndex,
    GetServerReady,
    GetStatistics,
    Hello,
    Infer,
    LoadModel,
    Message,
    Part,
    ProtocolError,
    RegionOpened,
    RegisterRegion,
    Response,
    Stop,
    UnloadModel,
    UnregisterRegion,
    UpdateLogSettings,
    UpdateTraceSettings,
    Welcome,
)
from broker.transport import Router
from broker.validation import Rejected
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
    "allow_client_shm": True,
    "http_max_input_size": 64 << 20,
    "http_header_forward_pattern": "",
    "http_restricted_api": (),
    "http_use_ssl": False,
    "http_server_cert": "",
    "http_server_key": "",
    "http_client_ca": "",
}
ARENA = (1 << 20, 16 << 20, 1 << 30)


class FakeBroker:
    """Use as a context manager; `frontend` starts processes, `seen` is everything that they have sent.

    Models: `echo` answers with its inputs (a raw request's input is FP32 `INPUT`), `slow` when `answer_slow` is called
    or the request is cancelled, `broken` with an error, `refusing` with one at once, `stream` with as many responses
    as its parameter `count` says (with `fails` the last is an error); all others are unknown.
    """

    def __init__(self, **options: Any) -> None:
        self.seen: list[Message] = []
        self.options = OPTIONS | options
        self._own_options: dict[str, dict[str, Any]] = {}
        self.metrics: list[dict[str, Any]] = []
        self._regions = Regions()
        self._directory = tempfile.TemporaryDirectory(prefix="tp-")
        self._server = os.urandom(4).hex()
        self._commands: list[Callable[[], None]] = []
        self._slow: dict[tuple[str, int], Infer] = {}
        self._streams: dict[tuple[str, int], _Stream] = {}
        self._client_regions = ClientRegions()
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

    def frontend(
        self,
        role: str,
        program: str = "",
        stdout: int | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "Frontend":
        """Start `python -m frontends.ROLE`, or else `program`, with a listening socket and wait for its Hello.

        `env` is added to its environment, `options` are its own.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        token = next(self._tokens)
        self._own_options[token] = options
        descriptor = listener.fileno()
        command = [sys.executable, "-P", *(["-c", program] if program else ["-m", f"frontends.{role}"])]
        place = [str(self._path), token, self._server, str(os.getpid()), str(descriptor)]
        environment = {**os.environ, **(env or {})}
        process = subprocess.Popen([*command, *place], pass_fds=(descriptor,), stdout=stdout, env=environment)
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
    def socket(self) -> str:
        """Where it listens on the fabric."""
        return str(self._path)

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
                    self.seen.append(message)
                    for answer in self._handle(token, message):
                        self._router.send(token, [answer])
            while self._commands:
                self._commands.pop(0)()

    def _handle(self, token: str, message: Message) -> list[Message]:
        match message:
            case Hello():
                regions = [RegionOpened(name) for name in self._announced]
                directory = Directory({"echo": "fake"}, {"fake": ARENA, "": ARENA}, ("stream",))
                return [Welcome(self.options | self._own_options.get(token, {})), directory, *regions]
            case RegionOpened(name):
                self._regions.open(name)
            case Infer():
                return self._infer(token, message)
            case Cancel(number):
                self._streams.pop((token, number), None)
                slow = self._slow.pop((token, number), None)
                return [Response(number, ErrorCode.CANCELLED, "", slow.model if slow else "stream", 1, (), {})]
            case Consumed(number, responses):
                stream = self._streams.get((token, number))
                if stream is not None:
                    stream.credit += responses
                    return self._advance(token, stream)
            case (
                GetServerReady()
                | GetModelReady()
                | GetModelMetadata()
                | GetModelConfig()
                | GetLabels()
                | GetStatistics()
                | GetMetrics()
                | GetRepositoryIndex()
                | LoadModel()
                | UnloadModel()
                | UpdateTraceSettings()
                | UpdateLogSettings()
                | RegisterRegion()
                | UnregisterRegion()
                | GetRegionStatus()
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
                try:
                    request, used = self._client_regions.resolve(request)
                except Rejected as error:
                    refusal = Response(request.request, error.code, str(error), "echo", 1, (), {}, Part.FINAL)
                    return [refusal]
                inputs = [_described(ref) if request.is_raw else ref for ref in request.inputs]
                chosen = [ref for ref in inputs if not request.outputs or ref.name in request.outputs]
                outputs = tuple([self._output(token, request, ref) for ref in chosen])
                self._client_regions.release(used, ())
                response = Response(request.request, ErrorCode.OK, "", "echo", 1, outputs, request.parameters)
            case "stream" if not request.endpoint:
                stream = _Stream(request)
                self._streams[token, request.request] = stream
                return self._advance(token, stream)
            case "slow":
                self._slow[token, request.request] = request
                return []
            case "broken":
                response = Response(request.request, ErrorCode.INTERNAL, "it broke", "broken", 1, (), {})
            case "refusing":
                text = "the queue is full"
                response = Response(request.request, ErrorCode.UNAVAILABLE, text, "refusing", 1, (), {}, Part.FINAL)
            case name:
                response = Response(request.request, ErrorCode.NOT_FOUND, unknown(name), name, 1, (), {})
        return [*[RegionOpened(name) for name in self._announced[known:]], response]

    def _advance(self, token: str, stream: "_Stream") -> list[Message]:
        """As many responses as there is credit for; numbers from 0, and an empty one that is final."""
        number, count = stream.request.request, stream.request.parameters.get("count", 0)
        sent: list[Message] = []
        while stream.credit and stream.sent < count:
            stream.credit -= 1
            output = inline("N", "INT32", (1,), stream.sent.to_bytes(4, "little"))
            sent.append(Response(number, ErrorCode.OK, "", "stream", 1, (output,), {}, Part.CONTENT))
            stream.sent += 1
        if stream.sent == count:
            del self._streams[token, number]
            if stream.request.parameters.get("fails"):
                sent.append(Response(number, ErrorCode.INTERNAL, "it broke", "stream", 1, (), {}))
            else:
                sent.append(Response(number, ErrorCode.OK, "", "stream", 1, (), {}, Part.FINAL))
        return sent

    def _output(self, token: str, request: Infer, ref: TensorRef) -> TensorRef:
        """An output with an input's bytes, where the client wants it."""
        data = self._client_bytes(ref) if ref.region.startswith("@") else bytes(self._regions.view(ref))
        for target in request.targets:
            if target.output == ref.name:
                with self._client_object(target.region).open("r+b") as file:
                    file.seek(target.offset)
                    file.write(data)
                return TensorRef(ref.name, ref.datatype, ref.shape, len(data), None, target.region, target.offset)
        return self._copy(token, ref, data)

    def _client_bytes(self, ref: TensorRef) -> bytes:
        return self._client_object(ref.region).read_bytes()[ref.offset : ref.offset + ref.byte_size]

    def _client_object(self, region: str) -> Path:
        """The shared memory object behind a resolved reference."""
        key = next(sent.key for sent in self._registered() if f"@{sent.number}" == region)
        return Path("/dev/shm") / key.lstrip("/")

    def _registered(self) -> list[ClientRegion]:
        sends = [effect for effect in self._client_regions.joined("") if isinstance(effect, Send)]
        return [send.message for send in sends if isinstance(send.message, ClientRegion)]

    def _copy(self, token: str, ref: TensorRef, data: bytes) -> TensorRef:
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
            case LoadModel() | UnloadModel() | GetRepositoryIndex():
                return self._control(question)
            case UpdateTraceSettings() | UpdateLogSettings():
                return self._settings(question)
            case RegisterRegion() | UnregisterRegion() | GetRegionStatus():
                return self._memory(question)
            case _:
                return self._about_model(question, model)
        return Answer(number, ErrorCode.OK, "", content)

    def _control(self, question: LoadModel | UnloadModel | GetRepositoryIndex) -> Answer:
        number = question.request
        if isinstance(question, LoadModel) and question.model == "nope":
            text = "failed to load 'nope', failed to poll from model repository"
            return Answer(number, ErrorCode.INTERNAL, text, None)
        index = [{"name": "echo", "version": "1", "state": "READY"}]
        return Answer(number, ErrorCode.OK, "", index if isinstance(question, GetRepositoryIndex) else None)

    def _about_model(self, question: Any, model: str) -> Answer:
        number = question.request
        match question:
            case _ if model not in {"echo", "slow", "broken", "refusing", "stream"}:
                return Answer(number, ErrorCode.NOT_FOUND, unknown(model), None)
            case GetModelConfig():
                content: Any = {"name": model, "max_batch_size": 0}
                content |= {"model_transaction_policy": {"decoupled": True}} if model == "stream" else {}
            case GetLabels():
                content = {"is_batched": False, "labels": {"X": ("cat", "dog")}}
            case _:
                inputs = [("X", "FP32", [-1]), ("S", "BYTES", [-1])]
                tensors = [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in inputs]
                content = {"name": model, "versions": ["1"], "platform": "fake", "inputs": tensors, "outputs": []}
        return Answer(number, ErrorCode.OK, "", content)

    def _settings(self, question: UpdateTraceSettings | UpdateLogSettings) -> Answer:
        """What was given, over something that is there always."""
        given = question.settings
        if given.get("log_format", "default") == "xml":
            text = "invalid argument for log_format, got: xml"
            return Answer(question.request, ErrorCode.INVALID_ARG, text, None)
        is_trace = isinstance(question, UpdateTraceSettings)
        values: dict[str, Any] = {"trace_level": ["OFF"], "trace_rate": ["1000"]} if is_trace else {"log_info": True}
        values |= {name: value for name, value in given.items() if value is not None}
        return Answer(question.request, ErrorCode.OK, "", values)

    def _memory(self, question: RegisterRegion | UnregisterRegion | GetRegionStatus) -> Answer:
        content: Any = None
        try:
            match question:
                case RegisterRegion():
                    self._client_regions.register(question, ())
                case UnregisterRegion():
                    self._client_regions.unregister(question, ())
                case GetRegionStatus():
                    content = self._client_regions.status(question)
        except Rejected as error:
            return Answer(question.request, error.code, str(error), None)
        return Answer(question.request, ErrorCode.OK, "", content)


@dataclass
class _Stream:
    """A request to `stream` that is not answered finally."""

    request: Infer
    sent: int = 0
    credit: int = STREAM_CREDIT


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

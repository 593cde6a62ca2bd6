"""The life of a worker: load one model, execute batches in the order in which they were sent, answer."""

import gc
import json
import mmap
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from broker.child import Place
from broker.messages import (
    DIGESTS_SETTING,
    PROTOCOL,
    RECORD_SETTING,
    Abandon,
    Answer,
    Beat,
    CheckReady,
    ClientRegion,
    ClientRegionGone,
    Credit,
    Directory,
    ErrorCode,
    Execute,
    Executed,
    Forget,
    Hello,
    Item,
    Keep,
    Load,
    Loaded,
    LoadFailed,
    Log,
    Message,
    Part,
    PassOn,
    PeerGone,
    ReadyChecked,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    Response,
    Result,
    SetVerbosity,
)
from broker.transport import Dealer
from shm.tensor import Regions
from workers import integrity, states, warmup
from workers.backend import Backend, Execution, Host, create
from workers.calls import Calls
from workers.client_memory import ClientMemory
from workers.connection import Connection
from workers.errors import BackendError, printable
from workers.inputs import Inputs
from workers.keeping import Keeping
from workers.model import ModelSpec
from workers.outcome import AGAIN, Again, Outcome
from workers.outputs import Outputs
from workers.progress import Progress
from workers.recorder import Recorder
from workers.streams import Streams
from workers.tracer import Tracer

PROMPT_NS = 200_000
"""An answer that took longer than this leaves before the next batch begins; shorter ones leave together."""
_OPEN = Result(ErrorCode.OK, "", (), {}, Part.NONE)
"""The request's stream answers."""
_AGAIN = Result(ErrorCode.OK, "", (), {}, Part.AGAIN)
"""The model wants the request once more."""


Connect = Callable[[Callable[[Message], None], Callable[[], None]], Connection]
"""Makes the connection of a worker from what handles messages and what beats."""


class Worker:
    """One per process; `run` is its life."""

    def __init__(self, place: Place, refusal: str = "", connect: Connect | None = None) -> None:
        """Connect (`connect`: otherwise than to a broker); nothing is received before `run`.

        `refusal` is why no model can be loaded here.
        """
        self._refusal = refusal
        connect = connect or partial(Connection, Dealer(place.socket, place.token))
        self._connection = connect(self._handle, self._beat)
        self._status = memoryview(mmap.mmap(place.descriptor, mmap.PAGESIZE)).cast("Q")
        self._regions = Regions()
        self._client_memory = ClientMemory()
        inputs = Inputs(self._regions, self._client_memory)
        self._outputs = Outputs(place, self._client_memory, self._connection.send)
        self._keeping = Keeping(self._outputs.names, self._connection.send, self._outputs.requested)
        self._tracer = Tracer(inputs, self._connection.send)
        self._streams = Streams(self._connection, self._outputs, self._tracer)
        self._calls = Calls(self._connection, self._outputs, self._regions)
        self._host = Host(inputs, self._log, self._streams, self._calls, self._outputs.room)
        self._backend: Backend | None = None
        self._states: states.States | None = None
        self._check: Callable[[], BackendError | None] | None = None
        self._checking = threading.Lock()
        self._verbosity = 0
        self._recorder: Recorder | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        self._connection.send(Hello(PROTOCOL, "worker", os.getpid()))
        while True:
            match self._connection.next():
                case Execute(attempt, items, slots):
                    self._execute(attempt, items, slots)
                case Load() as load:
                    self._load(load)
                case _:
                    break
        self._unload()
        self._connection.close()

    # ------------------------------------------------------------------------------------------- messages

    def _handle(self, message: Message) -> None:  # noqa: C901, PLR0912  # one case per message
        """What comes beside the work, perhaps while the main thread executes."""
        match message:
            case RegionOpened(name):
                self._regions.open(name)
            case RegionClosed(name):
                self._regions.close(name)
                self._connection.send(RegionDropped(name))
            case PeerGone(peer):
                self._outputs.reader_gone(peer)
            case PassOn():
                self._outputs.pass_on(message)
            case Credit():
                self._streams.credit(message)
            case Keep():
                self._keeping.want(message)
            case Forget():
                self._keeping.forget(message)
            case Abandon(attempt, index):
                self._streams.abandon(attempt, index)
            case Response():
                self._calls.respond(message)
            case Directory(cached=cached):
                self._calls.cached = frozenset(cached)
            case Answer():
                self._calls.answer(message)
            case CheckReady(number):
                threading.Thread(target=self._check_ready, args=(number,), name="is_ready", daemon=True).start()
            case ClientRegion():
                self._client_memory.add(message)
            case ClientRegionGone(number):
                self._client_memory.remove(number)
            case SetVerbosity(level):
                self._verbosity = level
            case _:
                return

    def _check_ready(self, number: int) -> None:
        if self._check is None or not self._checking.acquire(blocking=False):
            return  # it still does not answer
        try:
            error = self._check()
        finally:
            self._checking.release()
        code, text = (ErrorCode.OK, "") if error is None else (error.code, str(error))
        self._connection.send(ReadyChecked(number, code, text))

    def _log(self, level: str, text: str) -> None:
        """Any thread of the model may log; what the main thread says leaves at once, before a crash can take it."""
        if level == "V" and not self._verbosity:
            return
        self._connection.send(Log(level, printable(text)))
        if threading.current_thread() is threading.main_thread():
            self._connection.flush()

    def _beat(self) -> None:
        used, mapped = self._outputs.trim()
        kept, kept_mapped = self._keeping.trim()
        self._regions.retry_close()
        self._connection.send(Beat(used + kept, mapped + kept_mapped))

    # ------------------------------------------------------------------------------------------- load and unload

    def _load(self, load: Load) -> None:
        self._verbosity = load.log_verbose
        progress = Progress(self._connection.send, self._connection.flush)
        try:
            if self._refusal:
                raise BackendError(ErrorCode.INTERNAL, self._refusal)
            self._outputs.open(load)
            self._record(load)
            digests = json.loads(load.settings.get(DIGESTS_SETTING, "{}"))
            integrity.check(Path(load.model_directory), load.version, digests)
            model = ModelSpec.from_load(load)
            self._backend = create(model, self._host)
            progress.enter("load")
            interface = self._backend.load()
            self._states = self._streams.states = states.create(model, interface.max_batch_size(model))
            for number, sample in enumerate(warmup.samples(model, interface)):
                if number == 0:
                    progress.enter("warm-up")
                warmup.run(sample, self._backend, self._streams, self._connection.send)
        except BackendError as error:
            self._connection.send(LoadFailed(error.code, str(error)))
        except Exception as error:
            self._log("E", traceback.format_exc())
            self._connection.send(LoadFailed(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"))
        else:
            gc.collect()
            gc.freeze()  # what the model holds for good need not be walked again
            completed = [entry["name"] for entry in interface.config.get("output", ())]
            self._outputs.declare((*[o.name for o in model.outputs], *[o[0] for o in interface.outputs], *completed))
            self._check = interface.check
            if self._check is not None:
                self._connection.share()  # it is asked while the model executes, too
            progress.end()
            loaded = Loaded(interface.inputs, interface.outputs, dict(interface.config), self._check is not None)
            self._connection.send(loaded)

    def _record(self, load: Load) -> None:
        directory = load.settings.get(RECORD_SETTING)
        if directory:
            who = (load.model, load.version, load.instance)
            self._recorder = Recorder(Path(directory), self._host.inputs, who, partial(self._log, "W"))
            self._streams.failed = self._recorder.failed

    def _unload(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
        if self._backend is None:
            return
        try:
            self._backend.unload()
        except Exception:
            self._log("E", f"error while unloading:\n{traceback.format_exc()}")

    # ------------------------------------------------------------------------------------------- execution

    def _execute(self, attempt: int, items: tuple[Item, ...], slots: tuple[int, ...]) -> None:
        execution = Execution(attempt)
        self._status[0] = attempt
        is_traced = any(item.trace for item in items)
        if is_traced:
            self._tracer.inputs(attempt, items)
        if self._states is None:
            outcomes = self._outcomes(items, execution)
        else:
            self._streams.slots = slots
            items = self._states.fill(items, slots)
            outcomes = self._states.keep(slots, self._outcomes(items, execution))
        execution.outputs_are_computed()
        self._keeping.keep(attempt, items, outcomes)
        result = self._outputs.result
        results = tuple(
            [
                _OPEN if o is None else _AGAIN if o is AGAIN else result(item, o)
                for item, o in zip(items, outcomes, strict=True)
            ]
        )
        if is_traced:
            self._tracer.outputs(attempt, items, outcomes)
        if self._recorder is not None:
            self._recorder.executed(items, results)
        self._streams.executed(attempt)
        done = time.monotonic_ns()
        times = (execution.began, execution.inputs_ready, execution.outputs_computed, done)
        self._connection.send(Executed(attempt, results, times))
        if done - execution.began > PROMPT_NS:
            self._connection.flush()

    def _outcomes(self, items: tuple[Item, ...], execution: Execution) -> Sequence[Outcome | Again | None]:
        """One outcome for each item, whatever the backend does."""
        try:
            if self._backend is None:
                raise BackendError(ErrorCode.UNAVAILABLE, "the model is not loaded")
            outcomes = self._backend.execute(items, execution)
            if len(outcomes) != len(items):
                raise RuntimeError(f"the backend has {len(outcomes)} outcomes for {len(items)} requests")
        except BackendError as error:
            return [error] * len(items)
        except Exception as error:
            self._log("E", traceback.format_exc())
            return [BackendError(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")] * len(items)
        return outcomes

"""The repository process: reads, watches and validates what the broker must not wait for.

A peer of the fabric. A thread looks at server.pbtxt and the model directories and describes every model whose
configuration has changed; the main thread talks to the broker and samples the memory of the server's processes.
It outlives a killed broker for a moment, to remove what that leaves in shared memory.
"""

import os
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from broker import runtime
from broker.child import Place, take_place
from broker.file_events import FileEvents
from broker.gpus import memory_by_process, visible_gpus
from broker.load_memory import LoadMemory, default_path
from broker.machine import Machine, find_nvml
from broker.messages import (
    PROTOCOL,
    Beat,
    DescribeModel,
    ForgetModel,
    Hello,
    LoadMeasured,
    Log,
    MemorySampled,
    Message,
    PathUnused,
    RepositoryScanned,
    Sample,
    Stop,
    Traced,
    WatchRepository,
)
from broker.remote.events import Arrived, Fetched
from broker.trace_export import Exporter
from broker.transport import Dealer
from broker.watcher import Watcher
from configs import server as settings
from configs import trace
from configs.server import ServerConfig

if TYPE_CHECKING:
    from broker.remote.courier import Courier

LOOK_SECONDS = 0.25
"""How often what may have changed is looked at; a configuration counts when it has been still for one look."""
BEAT_SECONDS = 1.0
TURN_SECONDS = 0.05
"""How soon what was found leaves, and how soon the broker's death is noticed."""
BURIAL_SECONDS = (0.2, 1.0)
"""Pauses before we clean up after a killed broker, whose other children die with it."""

Inbox: TypeAlias = "queue.SimpleQueue[Message]"
Sampler: TypeAlias = Callable[[Iterable[int]], MemorySampled]
Wanted: TypeAlias = "queue.SimpleQueue[Message | Arrived | Fetched]"


def memory(pid: int) -> int | None:
    """The proportional set size of a process in bytes; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def watch(config: ServerConfig, scratch: Path, wanted: Wanted, out: Inbox) -> None:
    """Look for ever, and when `wanted` asks; what is found goes into `out`. Runs in a thread of its own."""
    try:
        _watch(config, scratch, wanted, out)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # better dead and started again than alive and blind


def _watch(config: ServerConfig, scratch: Path, wanted: Wanted, out: Inbox) -> None:
    watcher = Watcher(config, visible_gpus(), scratch, LoadMemory(default_path()))
    told = wanted.get()
    assert isinstance(told, WatchRepository), "the broker's first message"
    watcher.take_over(told)
    courier = _courier(config, wanted, out) if config.remotes else None
    if courier is not None:
        courier.begin(watcher.at_start)
    _put(out, watcher.scan(is_first=True))
    is_scanned = False
    events = FileEvents(config.model_repository) if config.model_control_mode == "poll" else None
    next_poll = time.monotonic() + config.repository_poll_secs
    while True:
        if watcher.is_complete and not is_scanned:
            out.put(RepositoryScanned())
            is_scanned = True
        _attend(watcher, courier, wanted, out)
        if events is not None:
            watcher.touch(events.take())
            _complain_of(events, config, out)
        _put(out, watcher.look())
        if events is not None and time.monotonic() >= next_poll:
            next_poll = time.monotonic() + config.repository_poll_secs
            _put(out, watcher.scan())


def _complain_of(events: FileEvents, config: ServerConfig, out: Inbox) -> None:
    problem = events.problem()
    if problem:
        every = f"every {config.repository_poll_secs} s"
        out.put(Log("W", f"no file events of the model repository, it is looked at {every}: {problem}"))


def _courier(config: ServerConfig, wanted: Wanted, out: Inbox) -> "Courier":
    from broker.remote.courier import Courier  # noqa: PLC0415  # clients of networks, which most servers do not need

    return Courier(config, wanted, out)


def _attend(watcher: Watcher, courier: "Courier | None", wanted: Wanted, out: Inbox) -> None:
    """See to what is asked for until it is time to look again."""
    end = time.monotonic() + LOOK_SECONDS
    while (remaining := end - time.monotonic()) > 0:
        try:
            message = wanted.get(timeout=remaining)
        except queue.Empty:
            return
        _put(out, _answer(watcher, courier, message))
        if isinstance(message, Arrived) and watcher.is_complete:
            return


def _answer(watcher: Watcher, courier: "Courier | None", message: Message | Arrived | Fetched) -> list[Message]:
    """What the broker is told because of something that was asked for, or has come from afar."""
    match message:
        case Arrived():
            return watcher.arrived(message)
        case Fetched():
            return watcher.consider(message.wanted, message.error)
        case DescribeModel() if courier is None or not courier.takes(message):
            return watcher.consider(message)
        case ForgetModel():
            watcher.forget(message.model)
        case PathUnused():
            watcher.release(message.path)
        case LoadMeasured():
            watcher.measured(message)
        case _:
            pass
    return []


def _put(out: Inbox, messages: list[Message]) -> None:
    for message in messages:
        out.put(message)


def serve(place: Place, broker: int, exporter: Exporter, sample: Sampler, wanted: Wanted, found: Inbox) -> bool:
    """Talk to the broker, our parent, until it says stop (True) or is dead (False)."""
    dealer = Dealer(place.socket, place.token)
    outgoing: list[Message] = [Hello(PROTOCOL, "repository", os.getpid())]
    next_beat = 0.0
    while os.getppid() == broker:
        while not found.empty():
            outgoing.append(found.get())
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + BEAT_SECONDS
            outgoing.append(Beat(0, 0))
        if outgoing:
            dealer.send(outgoing)
            outgoing = []
        dealer.wait(TURN_SECONDS)
        for message in dealer.receive():
            match message:
                case Sample(pids):
                    outgoing.append(sample(pids))
                case WatchRepository() | DescribeModel() | ForgetModel() | PathUnused() | LoadMeasured():
                    wanted.put(message)
                case Traced(record):
                    exporter.add(record)
                case Stop():
                    dealer.close()
                    return True
                case _:
                    continue
    return False


def _sampler(config: ServerConfig) -> Sampler:
    nvml = find_nvml() if config.allow_gpu_metrics or config.model_gpu_memory_budget else None
    machine = Machine(config.allow_cpu_metrics, nvml if config.allow_gpu_metrics else None)
    gpus = visible_gpus() if config.model_gpu_memory_budget else ()

    def sample(pids: Iterable[int]) -> MemorySampled:
        sampled = {pid: memory(pid) for pid in pids}
        pss = {pid: size for pid, size in sampled.items() if size is not None}
        return MemorySampled(pss, machine.sample(), memory_by_process(nvml, gpus))

    return sample


def main(arguments: list[str]) -> None:
    """Be the repository process; `arguments` are our place and the server's command line."""
    place = take_place(arguments, dies_with_broker=False)
    config = settings.load(arguments[5:])
    wanted: Wanted = queue.SimpleQueue()
    found: queue.SimpleQueue[Message] = queue.SimpleQueue()
    scratch = runtime.directory_of(place.server)
    threading.Thread(target=watch, args=(config, scratch, wanted, found), daemon=True).start()
    exporter = Exporter(trace.parse(config.trace_config))
    is_told_to_stop = serve(place, int(arguments[3]), exporter, _sampler(config), wanted, found)
    exporter.close()
    if not is_told_to_stop:
        for delay in BURIAL_SECONDS:  # the others are dying: nobody else cleans up
            time.sleep(delay)
            runtime.clean(place.server)
    os._exit(0)  # the thread may hang on a stalled file system


if __name__ == "__main__":
    main(sys.argv[1:])

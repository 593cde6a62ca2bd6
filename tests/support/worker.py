"""A broker of a few lines: starts one worker on the real fabric and talks to it; for tests of workers alone."""

import itertools
import json
import mmap
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from broker.child import Place
from broker.messages import (
    Execute,
    Executed,
    Item,
    Load,
    Loaded,
    LoadFailed,
    Message,
    ProtocolError,
    RegionOpened,
    Result,
    Stop,
)
from broker.transport import Router
from shm.arena import INLINE, Arena, ArenaSettings, Block, inline
from shm.ref import TensorRef
from shm.region import name_for, sweep
from shm.tensor import Regions, as_array, binary_form, datatype_of
from workers.worker import Worker

SECONDS = 60.0
"""How long anything may take."""
READER = "reader"


class FakeBroker:
    """One worker and everything around it; use as a context manager."""

    def __init__(self, cwd: Path | None = None) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="tp-")
        self.server = os.urandom(4).hex()
        self.cwd = cwd
        self.attempts = itertools.count(1)
        self.seen: list[Message] = []
        self.regions = Regions()

    def __enter__(self) -> "FakeBroker":
        socket = Path(self.directory.name) / "s"
        self.router = Router(socket)
        self.names = (name_for(self.server, READER, n) for n in itertools.count())
        self.opened: list[str] = []
        self.arena = Arena(
            ArenaSettings("test", 1 << 20, 1 << 20, 0), self.names, self.opened.append, lambda name: None
        )
        page = os.memfd_create("status")
        os.ftruncate(page, mmap.PAGESIZE)
        self.status = memoryview(mmap.mmap(page, mmap.PAGESIZE)).cast("Q")
        self.start(socket, page)
        self.wait_for("Hello")
        return self

    def start(self, socket: Path, page: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers", str(socket), "w", self.server, str(os.getpid()), str(page)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(page,),
            cwd=self.cwd,
        )
        os.close(page)

    def end(self, is_failure: bool) -> None:
        """Kill what is left, and show what it has printed when the test has failed."""
        self.process.kill()
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        if is_failure:
            print(output)
        self.process.stdout.close()
        self.process.wait()

    def check(self) -> None:
        """Fail when the worker is gone."""
        if self.process.poll() is not None:
            assert self.process.stdout is not None
            raise AssertionError(f"the worker is gone ({self.process.returncode}): {self.process.stdout.read()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(kind is not None)
        self.router.close()
        sweep(self.server)
        self.directory.cleanup()

    # ------------------------------------------------------------------------------------------- messages

    def send(self, *messages: Message) -> None:
        announced = [RegionOpened(name) for name in self.opened]
        self.opened.clear()
        self.router.send("w", [*announced, *messages])

    def receive(self) -> None:
        for _, messages in self.router.receive():
            assert not isinstance(messages, ProtocolError), messages
            for message in messages:
                if isinstance(message, RegionOpened):
                    self.regions.open(message.name)
                self.seen.append(message)

    def wait_for(self, *names: str) -> Any:
        """The next message of one of these classes; what came before it stays in `seen`."""
        deadline = time.monotonic() + SECONDS
        while True:
            for index, message in enumerate(self.seen):
                if type(message).__name__ in names:
                    return self.seen.pop(index)
            self.check()
            assert time.monotonic() < deadline, f"no {names}"
            if not self.router.has_more():
                select.select([self.router.fileno()], [], [], 0.1)
            self.receive()

    # ------------------------------------------------------------------------------------------- conversations

    def begin_load(self, backend: str, path: Path, config: dict[str, Any], version: int = 1, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "model": path.name,
            "version": version,
            "instance": f"{path.name}_0_0",
            "backend": backend,
            "model_directory": str(path),
            "kind": "KIND_CPU",
            "device_id": 0,
            "config": json.dumps({"name": path.name, **config}),
            "settings": {},
            "arena": (1 << 20, 1 << 20, 0),
            "log_verbose": 0,
            **changes,
        }
        self.send(Load(**fields))

    def load(self, *args: Any, **changes: Any) -> Loaded | LoadFailed:
        """As `begin_load`, and wait."""
        self.begin_load(*args, **changes)
        answer: Loaded | LoadFailed = self.wait_for("Loaded", "LoadFailed")
        return answer

    def loaded(self, backend: str, path: Path, config: dict[str, Any], **changes: Any) -> Loaded:
        answer = self.load(backend, path, config, **changes)
        assert isinstance(answer, Loaded), answer
        return answer

    def ref(self, name: str, array: np.ndarray[Any, Any], datatype: str = "", start: int = 0) -> TensorRef:
        """Put an input where the worker can read it, `start` bytes into its block."""
        datatype = datatype or datatype_of(array.dtype) or ""
        data = binary_form(datatype, array)
        if len(data) <= INLINE and not start:
            return inline(name, datatype, array.shape, data)
        if not self.arena.byte_size:
            self.arena.open()
        block: Block = self.arena.allocate(start + len(data))
        block.view(start, len(data))[:] = data
        return block.ref(name, datatype, array.shape, start, len(data))

    def execute(self, *items: Item) -> tuple[Result, ...]:
        attempt = next(self.attempts)
        self.send(Execute(attempt, items))
        executed: Executed = self.wait_for("Executed")
        assert executed.attempt == attempt
        assert list(executed.times) == sorted(executed.times)
        return executed.results

    def infer(self, *inputs: TensorRef, **changes: Any) -> Result:
        (result,) = self.execute(item(*inputs, **changes))
        return result

    def arrays(self, result: Result) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs of a result, copied; their blocks go back."""
        assert result.code == -1, result.error
        arrays = {ref.name: as_array(ref.datatype, ref.shape, self.regions.view(ref)).copy() for ref in result.outputs}
        for ref in result.outputs:
            self.regions.mark_done(ref)
        return arrays

    def stop(self) -> int:
        self.send(Stop("test"))
        return self.process.wait(SECONDS)


class ThreadBroker(FakeBroker):
    """The worker is a thread of the test, for counters that live in its process. Not for Python models."""

    def start(self, socket: Path, page: int) -> None:
        self.thread = threading.Thread(target=Worker(Place(str(socket), "w", self.server, page)).run)
        self.thread.start()

    def end(self, is_failure: bool) -> None:
        self.send(Stop("test"))
        self.thread.join(SECONDS)

    def check(self) -> None:
        assert self.thread.is_alive()


def item(*inputs: TensorRef, **changes: Any) -> Item:
    fields: dict[str, Any] = {
        "request_id": "",
        "inputs": inputs,
        "outputs": (),
        "parameters": {},
        "correlation_id": 0,
        "flags": 0,
        "priority": 0,
        "timeout_us": 0,
        "reader": READER,
        **changes,
    }
    return Item(**fields)


def tensor(name: str, data_type: str, *dims: int, **more: Any) -> dict[str, Any]:
    """An entry of `input` or `output` of a configuration."""
    return {"name": name, "data_type": data_type, "dims": list(dims), **more}


def write_model(directory: Path, name: str, source: str, file: str = "1/model.py") -> Path:
    """A model directory with one file."""
    path = directory / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return directory / name

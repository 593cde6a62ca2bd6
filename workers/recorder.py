"""Failed requests kept on disk, so that `python -m broker run --replay` can repeat them.

The worker only copies the inputs of a request that has failed; a thread writes them, and is not waited for. The
directory holds a bounded number of records and of bytes: the oldest go.
"""

import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from broker.messages import ErrorCode, Item, Result, describe_code
from shm.tensor import as_array
from workers import tensor_files
from workers.errors import BackendError
from workers.inputs import Inputs
from workers.tensor_files import Array

MAX_RECORDS = 100
MAX_BYTES = 256 << 20
"""Of all records in one directory."""
_MAX_REQUEST_BYTES = MAX_BYTES // 4
_WAITING = 8
"""Records that wait for the disk; more are left out."""

Write = Callable[[], None]


class Recorder:
    """Writes the failed requests of one worker into a directory that workers share."""

    def __init__(self, directory: Path, inputs: Inputs, who: tuple[str, int, str], log: Callable[[str], None]) -> None:
        """`who` is the model, the version and the instance. The directory is made with the first record."""
        self._directory = directory
        self._inputs = inputs
        self._who = who
        self._log = log
        self._numbers = itertools.count(1)
        self._queue: queue.Queue[Write] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def executed(self, items: Sequence[Item], results: Sequence[Result]) -> None:
        """A batch has been executed: keep what has failed. The inputs are still where they were."""
        for item, result in zip(items, results, strict=True):
            if result.code != ErrorCode.OK:
                self.failed(item, result)

    def failed(self, item: Item, result: Result) -> None:
        """A request has failed. Any thread."""
        size = sum(ref.byte_size for ref in item.inputs)
        if result.code == ErrorCode.CANCELLED or self._queue.full():
            return
        if size > _MAX_REQUEST_BYTES:
            self._log(f"a failed request with {size} bytes of inputs is too large to be recorded")
            return
        try:
            arrays = {ref.name: _array(ref.datatype, ref.shape, bytes(self._inputs.raw(ref))) for ref in item.inputs}
        except BackendError as error:
            self._log(f"a failed request cannot be recorded: {error}")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
            self._thread.start()
        content = msgspec.json.encode(self._describe(item, result))
        stem = f"{self._who[0]}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{next(self._numbers)}"
        with contextlib.suppress(queue.Full):  # another thread was faster
            self._queue.put_nowait(lambda: self._write(stem, content, arrays))

    def close(self) -> None:
        """Finish what waits."""
        if self._thread is not None:
            self._queue.join()

    def _describe(self, item: Item, result: Result) -> dict[str, object]:
        model, version, instance = self._who
        return {
            "model": model,
            "version": version,
            "instance": instance,
            "time": time.time(),
            "code": describe_code(result.code),
            "error": result.error,
            "request_id": item.request_id,
            "inputs": [{"name": ref.name, "datatype": ref.datatype, "shape": ref.shape} for ref in item.inputs],
            "outputs": item.outputs,
            "parameters": item.parameters,
            "correlation_id": item.correlation_id,
            "flags": item.flags,
            "priority": item.priority,
            "timeout_us": item.timeout_us,
        }

    def _work(self) -> None:
        while True:
            write = self._queue.get()
            try:
                write()
            except OSError as error:
                self._log(f"a failed request cannot be recorded: {error}")
            finally:
                self._queue.task_done()

    def _write(self, stem: str, content: bytes, arrays: dict[str, Array]) -> None:
        """The .json is written last: a record with it is complete."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        tensor_files.save(self._directory / f"{stem}.npz", arrays)
        draft = self._directory / f".{stem}.json"
        draft.write_bytes(content)
        draft.rename(self._directory / f"{stem}.json")
        prune(self._directory, MAX_RECORDS, MAX_BYTES)


def prune(directory: Path, max_records: int, max_bytes: int) -> None:
    """Remove the oldest records until the rest is within both limits. Raises OSError."""
    found: list[tuple[int, int, Path]] = []
    for path in directory.glob("*.json"):
        inputs = path.with_suffix(".npz")
        try:
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size + inputs.stat().st_size, path))
        except FileNotFoundError:
            continue  # another worker was faster
    kept = 0
    for number, (_, size, path) in enumerate(sorted(found, reverse=True), 1):
        kept += size
        if number > max_records or kept > max_bytes:
            path.unlink(missing_ok=True)
            path.with_suffix(".npz").unlink(missing_ok=True)


def _array(datatype: str, shape: Sequence[int], data: bytes) -> Array:
    """Readable where numpy has the datatype; else, or where the data are malformed, the bytes as they came."""
    if datatype != "BYTES":
        try:
            return as_array(datatype, shape, data)
        except ValueError:
            pass
    return np.frombuffer(data, np.uint8)

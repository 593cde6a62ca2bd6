"""Sees that a server stays whole while it is fuzzed: its processes, its memory, its descriptors, its log."""

import re
from pathlib import Path
from types import TracebackType

import psutil

from tests.golden.build import infer, tensor
from tests.golden.configurations import Configuration
from tests.golden.exchange import http_answers
from tests.support.server import Server
from tests.support.waiting import until

CALM_SECONDS = 20.0
"""How long a server may take to let go of what its clients left."""
MORE_DESCRIPTORS = 8
MORE_MEMORY = 256 << 20
"""Bytes that a process may grow by: bodies of 64 MiB pass through it, and allocators keep some. It stays there."""
MORE_SHARED_MEMORY = 64 << 20
NO_TROUBLE = re.compile(r"Failed to process the request|ExecuteBatchError")
"""What models raise that are told to, and what gRPC prints when a client does not wait for an error."""
GOOD = infer("identity_fp32", {"inputs": [tensor("IN", "FP32", [2], [1, 2])]}).parts[0]
MODELS = ("add_sub", "batched_bytes", "identity_bytes", "identity_fp32", "matrix", "parameters", "repeat", "types")
TROUBLE = re.compile(r"\w(Error|Exception)\b|died|malformed|was killed|failed$")


def fuzzed_server(directory: Path) -> Server:
    """A server with some of the golden tests' models; not started."""
    Configuration(MODELS).write(directory)
    return Server(directory)


class Watch:
    """Use as a context manager around the fuzzing: what is wrong afterwards fails the test."""

    def __init__(self, server: Server, keeps_processes: bool = True) -> None:
        """Without `keeps_processes` children may be replaced by new ones."""
        self._server = server
        self._keeps_processes = keeps_processes

    def __enter__(self) -> "Watch":
        for _ in range(20):  # what is made at the first request is no leak
            assert is_fine(self._server)
        self._before = {p.pid: resources(p) for p in self._processes()}
        self._shared = self._server.shm_bytes()
        self._log_length = len(self._server.log(1 << 30))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        assert self._server.process.poll() is None, "the broker has ended"
        until(lambda: is_fine(self._server), CALM_SECONDS, "a good request is answered")
        if self._keeps_processes:
            now = {p.pid for p in self._processes()}
            assert now == set(self._before), f"processes have been replaced: {self.new_log()[-3000:]}"
            lines = [
                line for line in self.new_log().splitlines() if TROUBLE.search(line) and not NO_TROUBLE.search(line)
            ]
            assert not lines, "\n".join(lines[:50])
        until(lambda: not self._leaks(), CALM_SECONDS, f"everything is let go: {self._leaks()}")

    def new_log(self) -> str:
        """What was logged since the beginning."""
        return self._server.log(1 << 30)[self._log_length :]

    def _processes(self) -> list[psutil.Process]:
        return [psutil.Process(self._server.process.pid), *self._server.children()]

    def _leaks(self) -> list[str]:
        leaks = []
        for process in self._processes():
            if process.pid not in self._before:
                continue
            memory, descriptors = resources(process)
            memory_before, descriptors_before = self._before[process.pid]
            name = " ".join(process.cmdline()[2:4])
            if descriptors > descriptors_before + MORE_DESCRIPTORS:
                leaks.append(f"{name} has {descriptors} descriptors instead of {descriptors_before}")
            if memory > memory_before + MORE_MEMORY:
                leaks.append(f"{name} has {memory >> 20} MiB instead of {memory_before >> 20}")
        if self._server.shm_bytes() > self._shared + MORE_SHARED_MEMORY:
            leaks.append(f"{self._server.shm_bytes() >> 20} MiB of shared memory instead of {self._shared >> 20}")
        return leaks


def resources(process: psutil.Process) -> tuple[int, int]:
    """Bytes of memory that are a process's own, and its number of open descriptors."""
    memory = process.memory_info()
    return memory.rss - memory.shared, process.num_fds()


def is_fine(server: Server) -> bool:
    """Whether a good request is answered well."""
    try:
        answer = http_answers(server.address("http"), [GOOD])[0]
    except OSError:
        return False
    return bool(answer and answer["status"] == 200 and answer["json"]["outputs"][0]["data"] == [1.0, 2.0])

"""The child processes: start them by module name, watch them through pidfds, read their output, bury them."""

import contextlib
import json
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from broker.effects import Share, Start
from broker.requests import Death

MODULES = {
    "worker": "workers",
    "worker with an environment": "workers.environments.enter",
    "http": "frontends.http",
    "grpc": "frontends.grpc",
    "metrics": "frontends.metrics",
    "sagemaker": "frontends.http.sagemaker",
    "vertex_ai": "frontends.http.vertex_ai",
    "repository": "broker.repository",
    "cache": "broker.redis_cache",
    "nursery": "workers.nursery",
}
"""What runs in each role."""

LAST_LINES = 5
"""Lines of output kept for the message about a death."""
_STACK_FRAME = re.compile(r"\s+@\s+0x[0-9a-f]+\s")
"""What native libraries print in numbers behind the reason for which they abort."""
_PIPE = 1 << 16
"""What a pipe holds."""
_READ = 1 << 14
_MAX_LINE = 1 << 14
_PF_EXITING = 4  # a flag of /proc/PID/stat


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process that a nursery has forked and we have adopted; what `subprocess.Popen` is for those that we started."""

    pid: int
    pidfd: int

    @staticmethod
    def of(pid: int) -> "Adopted":
        """Raises OSError when there is none, or it is no child of ours."""
        pidfd = os.pidfd_open(pid)
        if _stat(pid)[1:2] != [str(os.getpid())]:
            os.close(pidfd)
            raise ChildProcessError(f"process {pid} is not our child")
        return Adopted(pid, pidfd)

    def kill(self) -> None:
        """SIGKILL."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """Reap it: its exit status, or minus the signal that has killed it."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


@dataclass(frozen=True, slots=True)
class Channels:
    """What lies between a child and us: our end of its output and its own, what it inherits, a worker's status page."""

    output: int
    write: int
    inherited: int
    status: mmap.mmap | None


@dataclass(slots=True)
class Child:
    """A running process. `status` is a worker's status page (`ARCHITECTURE.md`)."""

    token: str
    name: str
    process: subprocess.Popen[bytes] | Adopted
    pidfd: int
    output: int
    status: mmap.mmap | None
    is_killed: bool = False
    is_mute: bool = False  # it has closed its output: there is nothing more to read
    is_flooding: bool = False  # it writes faster than we read
    partial: bytes = b""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))


class Supervisor:
    """Owns every child. Nothing here decides; a death is reported, not acted on."""

    def __init__(
        self,
        socket_path: str,
        server: str,
        listeners: Mapping[str, socket.socket],
        arguments: list[str],
        modules: Mapping[str, str] = MODULES,
    ) -> None:
        """`listeners` by role are handed to the frontends; `arguments` (the server's own) to the repository process."""
        self._place = (socket_path, server)
        self._listeners = listeners
        self._arguments = arguments
        self._modules = modules
        self.children: dict[str, Child] = {}

    def start(self, start: Start, inherited: int = -1, more: Sequence[str] = ()) -> Child:
        """Start a process, which may inherit a descriptor. Raises OSError; nothing is left of it then."""
        with ExitStack() as ours, ExitStack() as its:
            channels = self.open_channels(start, ours, its)
            inherited = channels.inherited if inherited < 0 else inherited
            process = subprocess.Popen(
                [*self._command(start), str(inherited), *self._more(start), *more],
                stdin=subprocess.DEVNULL,
                stdout=channels.write,
                stderr=channels.write,
                env=environment_of(start),
                pass_fds=[inherited] if inherited >= 0 else [],
            )
            ours.callback(process.wait)
            ours.callback(process.kill)
            bind(process.pid, start.share)  # it has one thread yet: others will inherit it
            pidfd = os.pidfd_open(process.pid)
            ours.pop_all()
        return self._keep(Child(start.peer, start.name, process, pidfd, channels.output, channels.status))

    def adopt(self, start: Start, process: Adopted, channels: Channels) -> Child:
        """Take in a worker that a nursery has forked."""
        return self._keep(Child(start.peer, start.name, process, process.pidfd, channels.output, channels.status))

    def open_channels(self, start: Start, ours: ExitStack, its: ExitStack) -> Channels:
        """Open what lies between us and a child; `ours` and `its` close the ends. Raises OSError."""
        output, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        ours.callback(os.close, output)
        its.callback(os.close, write)
        os.set_blocking(write, True)
        inherited, status = -1, None
        if start.role in self._listeners:
            inherited = self._listeners[start.role].fileno()
        elif start.role == "worker":
            inherited = os.memfd_create("tidepool-status", os.MFD_CLOEXEC)
            its.callback(os.close, inherited)
            os.ftruncate(inherited, mmap.PAGESIZE)
            status = mmap.mmap(inherited, mmap.PAGESIZE)
            ours.callback(status.close)
        return Channels(output, write, inherited, status)

    def _keep(self, child: Child) -> Child:
        self.children[child.token] = child
        return child

    def _command(self, start: Start) -> list[str]:
        role = start.role if start.environment is None else f"{start.role} with an environment"
        socket_path, server = self._place
        return [sys.executable, "-P", "-m", self._modules[role], socket_path, start.peer, server, str(os.getpid())]

    def _more(self, start: Start) -> list[str]:
        if start.environment is not None:
            return [json.dumps(asdict(start.environment))]
        return self._arguments if start.role == "repository" else []

    def kill(self, token: str) -> None:
        """SIGKILL; the death is reported as any other. One that is dying already dies by its own cause."""
        child = self.children.get(token)
        if child is not None and not _is_exiting(child.process.pid):
            child.is_killed = True
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()

    def read(self, child: Child) -> list[str]:
        """The complete lines that a child has written since the last call."""
        try:
            data = os.read(child.output, _READ)
        except BlockingIOError:
            return []
        child.is_mute, child.is_flooding = not data, len(data) == _READ
        *lines, child.partial = (child.partial + data).split(b"\n")
        if len(child.partial) > _MAX_LINE or not data:
            lines, child.partial = [*lines, child.partial], b""
        texts = [line.decode("utf-8", "replace") for line in lines if line]
        child.last_lines.extend([text for text in texts if not _STACK_FRAME.match(text)])
        return texts

    def bury(self, token: str) -> tuple[Death, list[str]]:
        """Reap a process whose pidfd has fired. Returns how it died and its last unread lines."""
        child = self.children.pop(token)
        status = child.process.wait()
        # As much as a pipe holds, and no more: others may still write to it.
        lines = [line for _ in range(_PIPE // _READ + 1) for line in self.read(child)]
        started = 0
        if child.status is not None:
            (started,) = struct.unpack_from("<Q", child.status, 0)
            child.status.close()
        os.close(child.pidfd)
        os.close(child.output)
        is_outside = status == -signal.SIGKILL and not child.is_killed
        return Death(describe_exit(status), is_outside, started, tuple(child.last_lines)), lines

    def end(self) -> None:
        """Kill and bury whoever is left."""
        for token in list(self.children):
            self.kill(token)
            self.bury(token)

    def stopped(self) -> set[str]:
        """The tokens of children in state T (stopped by a signal)."""
        return {token for token, child in self.children.items() if _stat(child.process.pid)[:1] == ["T"]}


def describe_exit(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exited with status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    return f"killed by signal {-status}"


def environment_of(start: Start) -> dict[str, str]:
    """The environment variables of a child."""
    environment = dict(os.environ)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would start a thread with every import
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if start.role in {"http", "grpc"}:
        # The buffers of large messages come from fresh memory each time: huge pages take most of their page faults.
        environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    if start.visible_devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = start.visible_devices
    if start.share is not None:
        environment |= start.share.variables
    return environment


def bind(pid: int, share: Share | None) -> None:
    """Bind a process to its cores. Raises OSError."""
    if share is not None and share.affinity is not None:
        os.sched_setaffinity(pid, share.affinity)


def _is_exiting(pid: int) -> bool:
    """Whether the process is on its way out: its connections close before its death can be seen."""
    return any(int(flags) & _PF_EXITING for flags in _stat(pid)[6:7])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)); empty when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []

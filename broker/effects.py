"""What the core wants done: data, executed by the server loop."""

from typing import NamedTuple, TypeAlias

from broker.messages import Message
from configs.description import Environment


class Send(NamedTuple):
    """Send a message to a peer."""

    peer: str
    message: Message


class Share(NamedTuple):
    """A process's part of the processors: threads of one execution, the cores it is bound to (None: to none in
    particular), environment variables that say so."""

    threads: int
    affinity: frozenset[int] | None
    variables: dict[str, str]


class Start(NamedTuple):
    """Start a process. `name` is for people, `visible_devices` its CUDA_VISIBLE_DEVICES (None: inherit ours).

    A worker may come out of the nursery of its `backend`.
    """

    peer: str
    role: str
    name: str
    visible_devices: str | None
    environment: Environment | None = None  # of a worker; None: the server's own
    backend: str = ""
    share: Share | None = None  # the server loop fills it in


class Kill(NamedTuple):
    """SIGKILL a peer's process; its death comes back as an event."""

    peer: str


class Unlink(NamedTuple):
    """Remove a region's name."""

    region: str


class Emit(NamedTuple):
    """Write a line to the server's log; level is one of `IWEV`."""

    level: str
    text: str


class ConfigureLog(NamedTuple):
    """Write the levels of `IWEV` that are named, in this form, from now on."""

    levels: frozenset[str]
    form: str


class Exit(NamedTuple):
    """End the server with this exit status."""

    status: int


Effect: TypeAlias = Send | Start | Kill | Unlink | Emit | ConfigureLog | Exit

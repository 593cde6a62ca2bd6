"""What every child process does first: find its place on the fabric and make sure to die with the broker."""

import ctypes
import os
import signal
import sys
from typing import NamedTuple

THREADS = "TIDEPOOL_THREADS"
"""The environment variable that says how many threads a worker's executions are to use."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Place(NamedTuple):
    """A child's place: the broker's socket, the child's token (its name on the fabric), the server's id.

    `descriptor` is the file descriptor that it inherits: a listening socket for an HTTP or metrics frontend, the
    status page for a worker, -1 for others.
    """

    socket: str
    token: str
    server: str
    descriptor: int


def take_place(argv: list[str], dies_with_broker: bool = True) -> Place:
    """Read `SOCKET TOKEN SERVER BROKER_PID DESCRIPTOR` from the command line.

    Exits if the broker is not our parent (any more). SIGINT and SIGTERM, which may reach the whole process group, are
    not for us: the broker decides when we stop. (A handler, unlike SIG_IGN, is not inherited by what we start.)
    """
    try:
        socket, token, server, parent, inherited = argv[:5]
        broker, descriptor = int(parent), int(inherited)
    except ValueError:
        sys.exit("this module is started by the broker: python -m broker --help")
    if dies_with_broker:
        die_with(broker)
    elif os.getppid() != broker:
        sys.exit("the broker is gone")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return Place(socket, token, server, descriptor)


def die_with(broker: int) -> None:
    """Be killed when the broker dies. Exits if it is not our parent (any more)."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != broker:
        sys.exit("the broker is gone")

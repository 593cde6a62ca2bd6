"""`python -P -m workers.environments.guard PARENT COMMAND...`: a step of a build that dies with the worker, whatever it
has started; what it inherits, the lock of the environment among it, it passes on."""

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command in this process's group, which nobody else is in; its exit status."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    try:
        return subprocess.run(command, close_fds=False, check=False).returncode & 0xFF
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main())

"""The process of one model instance; the broker starts it as `python -P -m workers SOCKET TOKEN SERVER BROKER_PID
DESCRIPTOR`."""

import os
import signal
import sys

from broker.child import Place, take_place
from workers import current
from workers.worker import Worker


def main(refusal: str = "") -> None:
    """Be a worker that the broker has started; `refusal` is why the model cannot be loaded here."""
    serve(take_place(sys.argv[1:]), refusal)


def serve(place: Place, refusal: str = "") -> None:
    """Serve until the broker says stop."""
    # what the model forks can be terminated, unlike ourselves
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    sys.stdout, sys.stderr = current.tagged(sys.stdout), current.tagged(sys.stderr)
    Worker(place, refusal).run()


if __name__ == "__main__":
    main()

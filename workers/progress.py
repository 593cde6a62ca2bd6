"""How far a worker is with loading its model, and how much memory that has taken."""

from collections.abc import Callable

from broker.messages import LoadProgress, Message


class Progress:
    """Tells the broker, at once: what comes next may take long."""

    def __init__(self, send: Callable[[Message], None], flush: Callable[[], None]) -> None:
        """Loading begins now."""
        self._send = send
        self._flush = flush
        self._at_first = _memory("VmRSS")

    def enter(self, phase: str) -> None:
        """The next phase begins."""
        self._send(LoadProgress(phase, 0))
        self._flush()

    def end(self) -> None:
        """Nothing is left to do."""
        self._send(LoadProgress("ready", max(0, _memory("VmHWM") - self._at_first)))


def _memory(name: str) -> int:
    """A line of /proc/self/status in bytes; 0 when there is none."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            label, _, rest = line.partition(b":")
            if label == name.encode():
                return int(rest.split()[0]) * 1024
    return 0

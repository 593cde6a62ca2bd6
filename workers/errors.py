"""The one error of this package: what clients and operators read, with its code."""

from broker.messages import ErrorCode


class BackendError(Exception):
    """A model cannot be loaded, a batch cannot be executed, or (as an outcome) a single request cannot."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        """`text` is what the client or the operator reads."""
        super().__init__(printable(text))
        self.code = code


def printable(text: str) -> str:
    """Text that can travel: Python's strings may hold lone surrogates (of odd file names), UTF-8 may not."""
    return text.encode(errors="replace").decode()

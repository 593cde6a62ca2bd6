"""Header forwarding: request headers (or gRPC metadata) that become parameters of the request. Pure."""

import re
from collections.abc import Iterable

from broker.messages import ErrorCode, Parameters
from frontends.errors import RequestError

_RESERVED = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output", "headers"}
)


class Forwarding:
    """Forwards the headers whose name a pattern is found in, whatever their case."""

    def __init__(self, pattern: str) -> None:
        """A regular expression; an empty one forwards nothing. Raises re.error."""
        self._pattern = re.compile(pattern, re.IGNORECASE) if pattern else None

    @property
    def is_on(self) -> bool:
        """Whether any header is forwarded."""
        return self._pattern is not None

    def parameters(self, headers: Iterable[tuple[str, str]]) -> Parameters:
        """The forwarded headers by name, in their order. Raises RequestError for a name that means something else."""
        if self._pattern is None:
            return {}
        forwarded: Parameters = {}
        for name, value in headers:
            if self._pattern.search(name):
                if name in _RESERVED or name.startswith("triton_"):
                    text = f"Header '{name}' is reserved for Triton usage and cannot be forwarded."
                    raise RequestError(ErrorCode.INVALID_ARG, text)
                forwarded[name] = _text(value)
        return forwarded


def _text(value: str) -> str:
    """A header's value; where its bytes are no UTF-8 (lone surrogates stand for them), they are Latin-1."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value

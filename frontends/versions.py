"""Model versions as clients write them, in both protocols."""

import re

from broker.messages import ErrorCode
from frontends.errors import RequestError

NEWEST = -1
"""The version of a request that names none: the highest one that is ready."""

_LEADING_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")  # what C's strtol reads
_MIN, _MAX = -(2**63), 2**63 - 1


def parse_version(text: str) -> int:
    """The version that `text` names; digits at its start suffice, empty is NEWEST. Raises RequestError."""
    if not text:
        return NEWEST
    version = _leading_integer(text)
    if version is None:
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"failed to get model version from specified version string '{text}' (details: stol), "
            "version should be an integral value > 0",
        )
    if version < 0:
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"invalid model version specified '{text}' , version should be an integral value > 0",
        )
    return version


def _leading_integer(text: str) -> int | None:
    match = _LEADING_INTEGER.match(text)
    if match is None:
        return None
    try:
        value = int(match[1])
    except ValueError:  # Python refuses thousands of digits
        return None
    return value if _MIN <= value <= _MAX else None

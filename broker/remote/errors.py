"""The error of remote repositories: why something could not be had, in one line for people."""

import os

from configs.errors import one_line

_LONGEST = 400


class RemoteError(Exception):
    """A repository or a file of it cannot be had; the text says why."""


def reason(error: BaseException) -> str:
    """What a client of a cloud says has gone wrong, in one line; the cause where the error itself says nothing."""
    if isinstance(error, RemoteError):
        return one_line(str(error))
    while not str(error).strip() and error.__cause__ is not None:
        error = error.__cause__
    text = one_line(" ".join(str(error).split()))[:_LONGEST]
    if isinstance(error, OSError) and error.strerror:
        where = f" ('{os.path.basename(str(error.filename))}')" if error.filename is not None else ""
        text = one_line(f"{error.strerror}{where}")[:_LONGEST]
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()

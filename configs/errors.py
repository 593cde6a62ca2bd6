"""The one error of this package: what is wrong in a configuration, one clear line per problem."""

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(Exception):
    """A configuration that cannot be used; `messages` holds one line per problem."""

    def __init__(self, *messages: str) -> None:
        self.messages: tuple[str, ...] = tuple(one_line(message) for message in messages)
        super().__init__(*self.messages)

    def __str__(self) -> str:
        return "\n".join(self.messages)


def one_line(text: str) -> str:
    """The text with line breaks and other characters that cannot be shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, known: Iterable[str], limit: int = 12) -> str:
    """How to go on after "unknown NAME": the nearest of the `known` names, else all of them if they are few."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    if 0 < len(names) <= limit:
        return f"; known are: {', '.join(names)}"
    return ""

"""Restricted APIs: groups of routes or RPCs that only clients with a certain header may use. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class _Key(NamedTuple):
    header: str
    value: str


class Restrictions:
    """Which APIs are restricted, and the header that opens each. Made by `parse`."""

    def __init__(self, feature: str, keys: Mapping[str, _Key]) -> None:
        """`feature` is `API` or `protocol`, for the text of a refusal."""
        self._feature = feature
        self._keys = keys

    @staticmethod
    def parse(flags: Iterable[str], feature: str = "API", header_prefix: str = "") -> "Restrictions":
        """Read `API[,API...]:HEADER=VALUE`, each one group; the server has checked these flags at its start.

        `header_prefix` stands before the header's name in what a client has to send.
        """
        keys: dict[str, _Key] = {}
        for flag in flags:
            names, _, condition = flag.partition(":")
            header, _, value = condition.partition("=")
            keys |= dict.fromkeys(names.split(","), _Key(header_prefix + header, value))
        return Restrictions(feature, keys)

    def refusal(self, name: str, headers: Mapping[str, str]) -> str | None:
        """What a client with these headers is told that may not use the API of this name; None when it may.

        `headers` finds names that are in lower case, however the client wrote them.
        """
        key = self._keys.get(name)
        if key is None or headers.get(key.header.lower()) == key.value:
            return None
        return f"This {self._feature} is restricted, expecting header '{key.header}'"

"""Restricted APIs: groups of routes or RPCs that only clients with a certain header may use. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

CATEGORIES = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
)


class _Key(NamedTuple):
    header: str
    value: str


class Restrictions:
    """Which categories are restricted, and the header that opens each. Made by `parse`."""

    def __init__(self, feature: str, keys: Mapping[str, _Key]) -> None:
        """`feature` is `API` or `protocol`, for the text of a refusal."""
        self._feature = feature
        self._keys = keys

    @staticmethod
    def parse(flags: Iterable[str], feature: str = "API", header_prefix: str = "") -> "Restrictions":
        """Read `CATEGORY[,CATEGORY...]:HEADER=VALUE`, each one group. Raises ValueError.

        `header_prefix` stands before the header's name in what a client has to send.
        """
        keys: dict[str, _Key] = {}
        for flag in flags:
            categories, colon, pair = flag.partition(":")
            header, equals, value = pair.partition("=")
            if not (categories and colon and header and equals and value):
                raise ValueError(
                    f"'{flag}' is not of the form <{feature.lower()}>[,<{feature.lower()}>...]:<key>=<value>"
                )
            for category in categories.split(","):
                if category not in CATEGORIES:
                    raise ValueError(f"unknown restricted {feature.lower()} '{category}'")
                if category in keys:
                    raise ValueError(
                        f"restricted {feature.lower()} '{category}' can not be specified in multiple config groups"
                    )
                keys[category] = _Key(header_prefix + header, value)
        return Restrictions(feature, keys)

    def refusal(self, category: str, headers: Mapping[str, str]) -> str | None:
        """What a client with these headers is told that may not use the category; None when it may.

        `headers` finds names that are in lower case, however the client wrote them.
        """
        key = self._keys.get(category)
        if key is None or headers.get(key.header.lower()) == key.value:
            return None
        return f"This {self._feature} is restricted, expecting header '{key.header}'"

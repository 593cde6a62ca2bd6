"""The syntax of restricted APIs: `API[,API...]:KEY=VALUE`, each API in one group at most."""

from collections.abc import Iterable, Iterator

APIS = (
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


def problems(groups: Iterable[str], word: str) -> Iterator[str]:
    """What is wrong; `word` is what the flag calls an API: `api` or `protocol`."""
    seen: set[str] = set()
    for group in groups:
        names, colon, condition = group.partition(":")
        if not colon or "=" not in condition or condition.startswith("="):
            yield f"'{group}': write <{word}>[,<{word}>...]:<key>=<value>"
            continue
        for name in names.split(","):
            if name not in APIS:
                yield f"unknown restricted {word} '{name}', there are: {', '.join(APIS)}"
            elif name in seen:
                yield f"restricted {word} '{name}' can not be specified in multiple config groups"
            seen.add(name)

"""`host_policy`: which cores the workers of an instance group run on, `NAME,numa-node=N` or `NAME,cpu-cores=0-3,8`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from configs.tree import Node

_FORMAT = "--host-policy option format is '<policy name>,<setting>=<value>'. Got"
_SETTINGS = ("numa-node", "cpu-cores")
_MOST_CORES = 1 << 16  # more than any machine has: a longer range is a slip of the pen


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Cores, or the NUMA node whose cores are meant; cores that are named win."""

    numa_node: int | None = None
    cpu_cores: frozenset[int] | None = None


def parse(texts: Iterable[str]) -> Mapping[str, HostPolicy]:
    """The policies by name; the last value of a setting counts. Raises ValueError."""
    given: dict[str, dict[str, str]] = {}
    for text in texts:
        name, comma, rest = text.partition(",")
        setting, equals, value = rest.partition("=")
        if not (name and comma and setting and equals and value):
            raise ValueError(f"{_FORMAT} {text}")
        if setting not in _SETTINGS:
            raise ValueError(
                f"Unsupported host policy setting '{setting}' is specified, supported settings are 'numa-node', "
                "'cpu-cores'"
            )
        given.setdefault(name, {})[setting] = value
    return {name: _policy(settings) for name, settings in given.items()}


def cores(text: str) -> frozenset[int]:
    """The numbers in `0-3,8`. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= last - first < _MOST_CORES:
            raise ValueError(
                "host policy setting 'cpu-cores' format is '<lower_cpu_core_id>-<upper_cpu_core_id>'. Got " + text
            )
        found |= {*range(first, last + 1)}
    return frozenset(found)


def unknown(config: Node, model: str, texts: Iterable[str]) -> Iterable[str]:
    """Warnings about policies that a model's instance groups name and the server does not have."""
    known = parse(texts)
    for group in config.get("instance_group"):
        name = group.get("host_policy")
        if name and name not in known:
            where = f"{group.at('host_policy')}: there is no --host-policy={name},..., so"
            yield f"{where} 'host_policy' of model '{model}' has no effect here"


def default_name(kind: str, gpu: int) -> str:
    """The policy of a group that names none."""
    return f"gpu_{gpu}" if kind == "KIND_GPU" else kind.removeprefix("KIND_").lower()


def _policy(settings: Mapping[str, str]) -> HostPolicy:
    node, listed = settings.get("numa-node"), settings.get("cpu-cores")
    if node is not None and not re.fullmatch(r"[0-9]{1,4}", node):
        raise ValueError(f"host policy setting 'numa-node' must be a number. Got {node}")
    return HostPolicy(None if node is None else int(node), None if listed is None else cores(listed))

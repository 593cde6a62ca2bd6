"""How the machine's processors are shared among workers: threads for each, cores, environment variables. Pure.

Every framework takes all the cores that it sees, in every process: with many workers they would only be in each other's
way. Here each worker gets its part of the cores.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from broker.child import THREADS
from broker.effects import Share
from broker.models import InstanceState, Model
from configs.backend_settings import LIGHT
from configs.host_policy import HostPolicy

OPENMP = "OMP_NUM_THREADS"
FOLLOWERS = (
    OPENMP,
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "RAYON_NUM_THREADS",
)
"""The variables that libraries look at when they are imported. One that the server was started with stays as it is."""

_GOING = frozenset({InstanceState.DRAINING, InstanceState.FAILED})


class Processors(NamedTuple):
    """What the server may use: cores by number, how many at a time (a container's quota), and the nodes' cores."""

    cores: frozenset[int]
    quota: float | None = None
    nodes: Mapping[int, frozenset[int]] = {}

    def usable(self, cores: frozenset[int] | None = None) -> int:
        """How many of these cores (None: of all) can be used at a time, at least 1."""
        there = len(self.cores if cores is None else cores)
        return max(1, there if self.quota is None else min(there, int(self.quota)))


def plan(
    processors: Processors,
    policies: Mapping[str, HostPolicy],
    policy: str,
    crowd: Mapping[str, int],
    environment: Mapping[str, str],
) -> Share:
    """The share of a worker under this host policy, when `crowd` workers by policy compute beside it, itself included.

    `environment` is the server's own: a number of threads that stands there is every worker's.
    """
    affinity = bound_to(processors, policies.get(policy))
    neighbours = sum(n for name, n in crowd.items() if bound_to(processors, policies.get(name)) == affinity)
    threads = stated(environment) or max(1, processors.usable(affinity) // max(1, neighbours))
    return Share(threads, affinity, variables(threads, environment))


def crowd(models: Iterable[Model]) -> Counter[str]:
    """How many workers compute on the processors, by host policy; what is about to be replaced does not count."""
    return Counter(
        instance.spec.host_policy
        for model in models
        for version in {**model.versions, **model.incoming}.values()
        if version.description.backend not in LIGHT
        for instance in version.instances
        if instance.spec.kind != "KIND_GPU" and not instance.is_leaving and instance.state not in _GOING
    )


def variables(threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a process that shall use so many threads."""
    return {THREADS: str(threads)} | {name: str(threads) for name in FOLLOWERS if not environment.get(name)}


def stated(environment: Mapping[str, str]) -> int:
    """The number of threads that the server's environment states for all workers, 0 for none."""
    text = environment.get(OPENMP, "").partition(",")[0]  # OpenMP takes one number for each level of nesting
    return int(text) if text.isdecimal() else 0


def bound_to(processors: Processors, policy: HostPolicy | None) -> frozenset[int] | None:
    """The cores that a policy means, less those that the server may not use; None: no policy, or no such cores."""
    if policy is None:
        return None
    wanted = policy.cpu_cores
    if wanted is None and policy.numa_node is not None:
        wanted = processors.nodes.get(policy.numa_node)
    return (wanted or frozenset()) & processors.cores or None


def missing(processors: Processors, policies: Mapping[str, HostPolicy]) -> Iterable[str]:
    """Warnings about policies that mean no core that the server may use."""
    for name, policy in policies.items():
        if bound_to(processors, policy) is None:
            yield (
                f"host policy '{name}' has no effect: the server may use none of its cores "
                f"(there are {_ranges(processors.cores)})"
            )


def _ranges(numbers: Iterable[int]) -> str:
    """`0-3,8`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)

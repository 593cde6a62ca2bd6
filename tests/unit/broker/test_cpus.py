"""Shares of the processors: threads, cores and variables of each worker."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.child import THREADS
from broker.cpus import FOLLOWERS, Processors, crowd, missing, plan
from broker.models import Instance, InstanceState, Model, Version
from configs.host_policy import HostPolicy
from tests.unit.broker.describe import description

EIGHT = Processors(frozenset(range(8)), None, {0: frozenset(range(4)), 1: frozenset(range(4, 8))})
POLICIES = {
    "two": HostPolicy(None, frozenset({0, 1})),
    "same two": HostPolicy(None, frozenset({0, 1, 99})),
    "node": HostPolicy(1, None),
    "both": HostPolicy(1, frozenset({2})),
    "elsewhere": HostPolicy(None, frozenset({64})),
    "no such node": HostPolicy(7, None),
}


@pytest.mark.parametrize(
    ("workers", "quota", "threads"),
    [(1, None, 8), (2, None, 4), (3, None, 2), (8, None, 1), (99, None, 1), (1, 2.5, 2), (2, 6.0, 3), (1, 0.5, 1)],
)
def test_workers_share_the_cores_or_what_the_container_may_use_of_them(
    workers: int, quota: float | None, threads: int
) -> None:
    share = plan(EIGHT._replace(quota=quota), {}, "cpu", {"cpu": workers}, {})
    assert (share.threads, share.affinity) == (threads, None)


@pytest.mark.parametrize(
    ("policy", "affinity", "threads"),
    [
        ("two", {0, 1}, 1),
        ("same two", {0, 1}, 1),
        ("node", {4, 5, 6, 7}, 4),
        ("both", {2}, 1),
        ("cpu", None, 2),
        ("elsewhere", None, 2),
        ("no such node", None, 2),
    ],
)
def test_workers_on_the_same_cores_share_those(policy: str, affinity: set[int] | None, threads: int) -> None:
    there = {"two": 1, "same two": 1, "node": 1, "cpu": 2, "elsewhere": 1, "no such node": 1}
    share = plan(EIGHT, POLICIES, policy, there, {})
    assert share.affinity == (None if affinity is None else frozenset(affinity))
    assert share.threads == threads


def test_libraries_are_told_by_their_own_variables() -> None:
    share = plan(EIGHT, {}, "cpu", {"cpu": 4}, {"PATH": "/bin"})
    assert share.variables == dict.fromkeys((THREADS, *FOLLOWERS), "2")


def test_what_the_server_was_started_with_counts() -> None:
    share = plan(EIGHT, {}, "cpu", {"cpu": 4}, {"OMP_NUM_THREADS": "3,1", "MKL_NUM_THREADS": "7"})
    assert share.threads == 3
    assert share.variables[THREADS] == share.variables["OPENBLAS_NUM_THREADS"] == "3"
    assert not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & share.variables.keys()


@given(
    st.sets(st.integers(0, 63), min_size=1),
    st.dictionaries(st.sampled_from(["cpu", *POLICIES]), st.integers(1, 40), min_size=1),
    st.one_of(st.none(), st.floats(0.01, 64)),
)
def test_there_are_no_more_threads_than_processors_unless_there_are_more_workers(
    cores: set[int], there: dict[str, int], quota: float | None
) -> None:
    processors = EIGHT._replace(cores=frozenset(cores), quota=quota)
    on: dict[frozenset[int], int] = {}
    for name, workers in there.items():
        share = plan(processors, POLICIES, name, there, {})
        where = processors.cores if share.affinity is None else share.affinity
        assert where
        assert where <= processors.cores
        assert share.threads >= 1
        if share.affinity is None:
            on[where] = on.get(where, 0) + workers * share.threads
            assert on[where] <= max(len(where), sum(there.values()))


def test_policies_that_mean_no_core_of_ours_are_warned_about() -> None:
    lines = list(missing(EIGHT, POLICIES))
    assert [line.split("'")[1] for line in lines] == ["elsewhere", "no such node"]
    assert lines[0].endswith("(there are 0-7)")


def test_only_workers_that_compute_on_the_processors_count() -> None:
    models = []
    for backend in ("python", "identity"):
        version = Version.create(replace(description("m"), backend=backend), 1)
        spec = replace(description("m").instances[0], host_policy="cpu")
        states = (InstanceState.READY, InstanceState.DRAINING, InstanceState.FAILED, InstanceState.WAITING)
        version.instances = [Instance(spec, version, state) for state in states]
        version.instances.append(Instance(spec, version, InstanceState.READY, is_leaving=True))
        version.instances.append(Instance(replace(spec, kind="KIND_GPU"), version, InstanceState.READY))
        version.instances.append(Instance(replace(spec, host_policy="p"), version, InstanceState.STARTING))
        models.append(Model(backend, versions={1: version}))
    assert crowd(models) == {"cpu": 2, "p": 1}


def test_a_version_that_takes_over_counts_in_place_of_the_old() -> None:
    made = []
    for count in (3, 2):
        version = Version.create(description("m"), 1)
        spec = replace(description("m").instances[0], host_policy="cpu")
        version.instances = [Instance(spec, version, InstanceState.READY) for _ in range(count)]
        made.append(version)
    assert crowd([Model("m", versions={1: made[0]}, incoming={1: made[1]})]) == {"cpu": 2}

"""What the machine says about processors."""

import os
from pathlib import Path

import pytest

from broker import processors


def group(root: Path, path: str, **files: str) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / path / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "above", "quotas"),
    [
        ("max 100000", "max 100000", []),
        ("250000 100000", "max 100000", [2.5]),
        ("max 100000", "400000 100000", [4.0]),
        ("50000 100000", "400000 100000", [0.5, 4.0]),
    ],
)
def test_quotas_of_our_control_group_and_those_around_it(
    tmp_path: Path, own: str, above: str, quotas: list[float]
) -> None:
    (tmp_path / "cgroup").write_text("0::/pod/container\n")
    group(tmp_path, "pod", cpu__max=above)
    group(tmp_path, "pod/container", cpu__max=own)
    assert list(processors._quotas(tmp_path / "cgroup", tmp_path)) == quotas


def test_quotas_of_older_control_groups(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/x\n3:cpu,cpuacct:/pod\n0::/\n")
    group(tmp_path, "cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    group(tmp_path, "cpu,cpuacct/pod", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    assert list(processors._quotas(tmp_path / "cgroup", tmp_path)) == [1.5]


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    assert list(processors._quotas(tmp_path / "cgroup", tmp_path)) == []
    assert processors.nodes(tmp_path) == {}


def test_nodes_and_their_cores(tmp_path: Path) -> None:
    for name, text in (("node0", "0-3,8"), ("node1", ""), ("node2", "4-7"), ("node_x", "9")):
        group(tmp_path, name, cpulist=text)
    assert processors.nodes(tmp_path) == {0: frozenset({0, 1, 2, 3, 8}), 2: frozenset({4, 5, 6, 7})}


def test_this_machine() -> None:
    found = processors.find()
    assert found.cores == os.sched_getaffinity(0)
    assert 1 <= found.usable() <= len(found.cores)

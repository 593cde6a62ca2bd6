"""Host policies: what the flag says, and which groups ask for one."""

from pathlib import Path

import pytest

from configs.host_policy import HostPolicy, cores, default_name, parse
from configs.model import describe
from configs.server import ServerConfig


def test_settings_of_one_policy_come_together_and_the_last_counts() -> None:
    given = ["a,numa-node=1", "b,cpu-cores=0-2,5", "a,cpu-cores=7", "b,cpu-cores=0-1,4-4"]
    assert parse(given) == {"a": HostPolicy(1, frozenset({7})), "b": HostPolicy(None, frozenset({0, 1, 4}))}


@pytest.mark.parametrize("text", ["p", "p,", "p,cpu-cores", "p,cpu-cores=", ",cpu-cores=1", "p,=1", "cpu-cores=1"])
def test_the_form_of_the_flag(text: str) -> None:
    with pytest.raises(ValueError, match=f"'<policy name>,<setting>=<value>'\\. Got {text}"):
        parse([text])


@pytest.mark.parametrize("text", ["a", "5-3", "1-", "-1", "1,,2", "0-99999999", "1-2-3", "0x1"])
def test_cores_are_ranges(text: str) -> None:
    with pytest.raises(ValueError, match="format is '<lower_cpu_core_id>-<upper_cpu_core_id>'"):
        cores(text)


def test_other_settings_and_nodes_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="Unsupported host policy setting 'cores' is specified, supported settings"):
        parse(["p,cores=1"])
    with pytest.raises(ValueError, match="'numa-node' must be a number"):
        parse(["p,numa-node=one"])


def test_groups_without_a_policy_have_that_of_their_kind() -> None:
    assert default_name("KIND_CPU", 0) == "cpu"
    assert default_name("KIND_MODEL", 0) == "model"
    assert default_name("KIND_GPU", 3) == "gpu_3"


@pytest.mark.parametrize(("policies", "warnings"), [((), 1), (("numa0,numa-node=0",), 0)])
def test_a_policy_that_the_server_does_not_have(tmp_path: Path, policies: tuple[str, ...], warnings: int) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    groups = 'instance_group [ { kind: KIND_CPU host_policy: "numa0" }, { kind: KIND_GPU } ]'
    (tmp_path / "m" / "config.pbtxt").write_text(f'backend: "python" {groups}')
    described = describe(tmp_path / "m", None, ServerConfig(host_policy=policies), ("5", "6"))
    assert [instance.host_policy for instance in described.instances] == ["numa0", "gpu_0", "gpu_1"]
    assert len(described.warnings) == warnings

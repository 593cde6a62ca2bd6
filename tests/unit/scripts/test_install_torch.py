"""No CUDA build is ever asked for on a machine without a GPU, and a missing build is no failure."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "install_torch.py"
specification = importlib.util.spec_from_file_location("install_torch", SCRIPT)
assert specification is not None
assert specification.loader is not None
install_torch = importlib.util.module_from_spec(specification)
specification.loader.exec_module(install_torch)


class Pip:
    """Stands for pip: notes what it is asked for, and finds only what lies on `index`."""

    def __init__(self, index: str | None) -> None:
        self.index = index
        self.asked: list[list[str]] = []

    def __call__(self, arguments: list[str]) -> str:
        self.asked.append(arguments)
        return "" if self.index in arguments else f"No matching distribution found for {arguments[-1]}"


def reachable(url: str) -> str:
    return ""


def unreachable(url: str) -> str:
    return "timed out"


def test_the_projects_constraints_pin_torch() -> None:
    version = install_torch.pinned_version((SCRIPT.parents[1] / "constraints.txt").read_text())
    assert version[0].isdigit()


def test_without_a_pin_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="torch==VERSION"):
        install_torch.pinned_version("torchvision==0.28\nnumpy==2.4.6\n")


def test_without_a_gpu_every_source_is_asked_for_the_cpu_build() -> None:
    requirements = [source.requirement for source in install_torch.sources("2.13.0", has_gpu=False)]
    assert requirements
    assert all(requirement == "torch==2.13.0+cpu" for requirement in requirements)


def test_with_a_gpu_the_normal_build_is_asked_for() -> None:
    assert [s.requirement for s in install_torch.sources("2.13.0", has_gpu=True)] == ["torch==2.13.0"]


def test_pytorchs_own_index_is_asked_when_pips_sources_lack_it() -> None:
    pip = Pip(install_torch.CPU_INDEX)
    assert install_torch.install(install_torch.sources("2.13.0", has_gpu=False), pip, reachable) == []
    assert pip.asked == [
        ["torch==2.13.0+cpu"],
        ["--extra-index-url", install_torch.CPU_INDEX, "torch==2.13.0+cpu"],
    ]


def test_nothing_more_is_tried_once_it_is_installed() -> None:
    pip = Pip("torch==2.13.0+cpu")
    assert install_torch.install(install_torch.sources("2.13.0", has_gpu=False), pip, unreachable) == []
    assert len(pip.asked) == 1


def test_each_source_that_failed_is_named_and_an_unreachable_one_is_not_waited_for() -> None:
    pip = Pip(None)
    failures = install_torch.install(install_torch.sources("2.13.0", has_gpu=False), pip, unreachable)
    assert len(failures) == 2
    assert "No matching distribution" in failures[0]
    assert install_torch.CPU_INDEX in failures[1]
    assert "timed out" in failures[1]
    assert len(pip.asked) == 1

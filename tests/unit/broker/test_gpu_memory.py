"""What processes have on GPUs, with a double for NVML; on a real GPU this has not been run."""

from types import SimpleNamespace
from typing import Any

from broker.gpus import memory_by_process


class NoSuchDeviceError(Exception):
    """NVML's."""


class Nvml:
    """Two GPUs: 0 with two processes, one of which does not tell; GPU-b by its uuid."""

    NVMLError = NoSuchDeviceError

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index:
            raise NoSuchDeviceError
        return "zero"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, device: str) -> list[Any]:
        if device == "zero":
            return [SimpleNamespace(pid=7, usedGpuMemory=1000), SimpleNamespace(pid=8, usedGpuMemory=None)]
        return [SimpleNamespace(pid=7, usedGpuMemory=500)]


def test_each_process_is_counted_on_each_gpu() -> None:
    assert memory_by_process(Nvml(), ["0", "GPU-b"]) == {7: {"0": 1000, "GPU-b": 500}, 8: {"0": 0}}


def test_gpus_that_do_not_tell_are_left_out() -> None:
    assert memory_by_process(Nvml(), ["1"]) == {}
    assert memory_by_process(None, ["0"]) == {}

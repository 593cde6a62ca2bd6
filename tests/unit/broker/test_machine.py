"""Gauges of the machine: arithmetic over /proc, and GPUs that do not measure everything."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.machine import Machine


def write(proc: Path, stat: str, total: int = 1000, available: int = 400) -> None:
    (proc / "stat").write_text(f"cpu  {stat}\ncpu0 1 2 3 4\n")
    (proc / "meminfo").write_text(f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\nHugePages: 0\n")


def test_utilization_is_what_was_not_idle_since_the_last_sample(tmp_path: Path) -> None:
    write(tmp_path, "10 0 10 70 10 0 0 0 5 5")
    machine = Machine(True, None, tmp_path)
    assert machine.sample()["nv_cpu_utilization"] == pytest.approx(0.2)
    write(tmp_path, "60 0 10 110 20 0 0 0 9 9")
    assert machine.sample()["nv_cpu_utilization"] == pytest.approx(0.5)
    assert machine.sample()["nv_cpu_utilization"] == 0.0, "no time has passed"


def test_memory_that_is_used_is_not_available(tmp_path: Path) -> None:
    write(tmp_path, "1 1 1 1 1 1 1 1")
    found = Machine(True, None, tmp_path).sample()
    assert (found["nv_cpu_memory_total_bytes"], found["nv_cpu_memory_used_bytes"]) == (1000 * 1024, 600 * 1024)


def test_this_machine_has_gauges() -> None:
    found = Machine(True, None).sample()
    assert 0 <= found["nv_cpu_utilization"] <= 1
    assert 0 < found["nv_cpu_memory_used_bytes"] < found["nv_cpu_memory_total_bytes"]


def test_nothing_is_sampled_unless_wanted(tmp_path: Path) -> None:
    assert Machine(False, None, tmp_path).sample() == {}


class Nvml:
    """Two GPUs; the second one is a slice that measures no power, the third has fallen off the bus."""

    class NVMLError(Exception):
        """NVML's base class of errors."""

    def __init__(self) -> None:
        self.millijoules = 5_000_000

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetUUID(self, device: int) -> str:
        return f"GPU-{device}"

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:
        return SimpleNamespace(total=100 + device, used=40)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        return SimpleNamespace(gpu=25)

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:
        return self._power(device, 70_000)

    def nvmlDeviceGetPowerManagementLimit(self, device: int) -> int:
        return self._power(device, 700_000)

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        return self._power(device, self.millijoules)

    def _power(self, device: int, value: int) -> int:
        if device == 1:
            raise self.NVMLError("Not Supported")
        return value


def test_what_a_gpu_does_not_measure_is_left_out() -> None:
    nvml = Nvml()
    machine = Machine(False, nvml)
    assert machine.sample() == {
        "gpu_uuids": {"0": "GPU-0", "1": "GPU-1"},
        "nv_gpu_utilization": {"GPU-0": 0.25, "GPU-1": 0.25},
        "nv_gpu_memory_total_bytes": {"GPU-0": 100, "GPU-1": 101},
        "nv_gpu_memory_used_bytes": {"GPU-0": 40, "GPU-1": 40},
        "nv_gpu_power_usage": {"GPU-0": 70.0},
        "nv_gpu_power_limit": {"GPU-0": 700.0},
        "nv_energy_consumption": {"GPU-0": 0.0},
    }
    nvml.millijoules += 3_000
    assert machine.sample()["nv_energy_consumption"] == {"GPU-0": pytest.approx(3.0)}

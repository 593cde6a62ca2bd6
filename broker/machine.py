"""Gauges of the machine: CPU and memory from /proc, GPUs through NVML where nvidia-ml-py is installed."""

from pathlib import Path
from typing import Any


class Machine:
    """Samples the gauges that are wanted, by the names of their metrics."""

    def __init__(self, with_cpu: bool, with_gpu: bool, proc: Path = Path("/proc")) -> None:
        """GPUs are left out where there is no NVML."""
        self._proc = proc
        self._with_cpu = with_cpu
        self._nvml = _nvml() if with_gpu else None
        self._energy_began: dict[str, float] = {}
        self._ticks = (0, 0)

    def sample(self) -> dict[str, Any]:
        """Numbers; for GPUs dicts of numbers by uuid."""
        found: dict[str, Any] = {}
        if self._with_cpu:
            found |= self._cpu()
        if self._nvml is not None:
            found |= self._gpus(self._nvml)
        return found

    def _cpu(self) -> dict[str, float]:
        fields = [int(field) for field in (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle, total = fields[3] + fields[4], sum(fields)
        last_idle, last_total = self._ticks
        self._ticks = idle, total
        passed = total - last_total
        lines = (self._proc / "meminfo").read_text().splitlines()
        memory = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return {
            "nv_cpu_utilization": 1 - (idle - last_idle) / passed if passed else 0.0,
            "nv_cpu_memory_total_bytes": memory["MemTotal"],
            "nv_cpu_memory_used_bytes": memory["MemTotal"] - memory["MemAvailable"],
        }

    def _gpus(self, nvml: Any) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = nvml.nvmlDeviceGetUUID(device)
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
            joules = nvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1000
            values = {
                "nv_gpu_utilization": nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
                "nv_gpu_memory_total_bytes": memory.total,
                "nv_gpu_memory_used_bytes": memory.used,
                "nv_gpu_power_usage": nvml.nvmlDeviceGetPowerUsage(device) / 1000,
                "nv_gpu_power_limit": nvml.nvmlDeviceGetPowerManagementLimit(device) / 1000,
                "nv_energy_consumption": joules - self._energy_began.setdefault(uuid, joules),
            }
            for name, value in values.items():
                found.setdefault(name, {})[uuid] = value
        return found


def _nvml() -> Any:
    """The NVML module, initialised; None where there is none, or no driver."""
    try:
        import pynvml  # noqa: PLC0415  # an extra, and only where there are GPUs

        pynvml.nvmlInit()
    except Exception:  # NVML raises classes of its own, which need the module
        return None
    return pynvml

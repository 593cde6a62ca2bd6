"""Gauges of the machine: CPU and memory from /proc, GPUs through NVML where nvidia-ml-py is installed."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Machine:
    """Samples the gauges that are wanted, by the names of their metrics."""

    def __init__(self, with_cpu: bool, nvml: Any, proc: Path = Path("/proc")) -> None:
        """`nvml` is the module (`find_nvml`), None to leave GPUs out."""
        self._proc = proc
        self._with_cpu = with_cpu
        self._nvml = nvml
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

    def _gpus(self, nvml: Any) -> dict[str, dict[str, Any]]:
        """What a device does not measure (a slice of one, say) is left out."""
        found: dict[str, dict[str, Any]] = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(device)
            except nvml.NVMLError:
                continue
            found.setdefault("gpu_uuids", {})[str(index)] = uuid
            for name, read in _GPU_GAUGES.items():
                with contextlib.suppress(nvml.NVMLError):
                    found.setdefault(name, {})[uuid] = read(nvml, device)
        for uuid, joules in found.get("nv_energy_consumption", {}).items():
            found["nv_energy_consumption"][uuid] = joules - self._energy_began.setdefault(uuid, joules)
        return found


_GPU_GAUGES: dict[str, Callable[[Any, Any], float]] = {
    "nv_gpu_utilization": lambda nvml, device: nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
    "nv_gpu_memory_total_bytes": lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).total,
    "nv_gpu_memory_used_bytes": lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).used,
    "nv_gpu_power_usage": lambda nvml, device: nvml.nvmlDeviceGetPowerUsage(device) / 1000,
    "nv_gpu_power_limit": lambda nvml, device: nvml.nvmlDeviceGetPowerManagementLimit(device) / 1000,
    "nv_energy_consumption": lambda nvml, device: nvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1000,
}


def find_nvml() -> Any:
    """The NVML module, initialised; None where there is none, or no driver."""
    try:
        import pynvml  # noqa: PLC0415  # an extra, and only where there are GPUs

        pynvml.nvmlInit()
    except Exception:  # NVML raises classes of its own, which need the module
        return None
    return pynvml

"""Which GPUs the server may use, and what processes have in their memory; without importing any GPU library."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def visible_gpus(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """The usable GPUs as entries of CUDA_VISIBLE_DEVICES: indices, or the server's own mask where it has one."""
    present = sorted(
        int(path.name.removeprefix("nvidia"))
        for path in devices.glob("nvidia[0-9]*")
        if path.name.removeprefix("nvidia").isdigit()
    )
    if not present:
        return ()
    mask = environ.get("CUDA_VISIBLE_DEVICES")
    if mask is None:
        return tuple(str(index) for index in present)
    usable = []
    for entry in (part.strip() for part in mask.split(",")):
        if not entry or entry == "-1":
            break  # CUDA ignores everything after an invalid entry
        usable.append(entry)
    return tuple(usable)


def memory_by_process(nvml: Any, gpus: Iterable[str]) -> dict[int, dict[str, int]]:
    """The bytes that each process has on these GPUs, by process id and GPU, as NVML says (None: no NVML).

    A GPU that does not tell is left out. NVML counts in the process ids of the host.
    """
    found: dict[int, dict[str, int]] = {}
    for gpu in gpus if nvml is not None else ():
        try:
            by_index = gpu.isdecimal()
            device = nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if by_index else nvml.nvmlDeviceGetHandleByUUID(gpu)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(device)
        except nvml.NVMLError:
            continue
        for process in processes:
            found.setdefault(process.pid, {})[gpu] = process.usedGpuMemory or 0
    return found

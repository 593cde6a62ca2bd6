"""Which GPUs the server may use, without importing any GPU library."""

import os
from collections.abc import Mapping
from pathlib import Path


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

"""The tables that the server prints for people. Pure text."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from broker.loading import phase
from broker.models import Instance, InstanceState, Model, Version

_WIDEST = 100


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in the manner of Triton's: `+---+` lines, left-aligned cells; long cells are wrapped."""
    cells = [[_wrap(str(cell)) for cell in row] for row in [header, *rows]]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(header))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+\n"
    text = rule
    for number, row in enumerate(cells):
        for line in range(max(len(cell) for cell in row)):
            parts = [(cell[line] if line < len(cell) else "").ljust(w) for cell, w in zip(row, widths, strict=True)]
            text += "| " + " | ".join(parts) + " |\n"
        if number == 0:
            text += rule
    return text + rule


def models(found: Mapping[str, Model]) -> str:
    """Every model and version with its state, and the reason where it does not serve."""
    rows: list[tuple[str, str, str]] = []
    for name, model in sorted(found.items()):
        for number, version in sorted(model.versions.items()):
            reason = f": {version.remark}" if version.remark else ""
            rows.append((name, str(number), f"{version.state}{reason}"))
        if model.rejected:
            rows.append((name, "-", f"{'not applied' if model.versions else 'UNAVAILABLE'}: {model.rejected}"))
    return table(("Model", "Version", "Status"), rows)


def instances(found: Mapping[str, Model]) -> str:
    """Every instance with its process and device."""
    rows = [
        (version.model, str(version.number), i.key, str(i.pid or "-"), _device(i), i.state.value)
        for _, model in sorted(found.items())
        for version in model.all_versions()
        for i in version.instances
    ]
    return table(("Model", "Version", "Instance", "Pid", "Device", "State"), rows)


def options(values: Mapping[str, Any]) -> str:
    """Option and value."""
    return table(("Option", "Value"), [(name, str(value)) for name, value in values.items()])


def progress(found: Mapping[str, Model]) -> str:
    """One line about a start that is under way."""
    versions = [version for model in found.values() for version in model.versions.values()]
    busy = [f"{i.key} ({phase(i)})" for v in versions for i in v.instances if _is_loading(v, i)]
    done = sum(1 for v in versions if v.state.value != "LOADING")
    shown = ", ".join(busy[:4]) + (", ..." if len(busy) > 4 else "")
    return f"loading: {done} of {len(versions)} model versions done" + (f", loading {shown}" if busy else "")


def _is_loading(version: Version, instance: Instance) -> bool:
    return version.state.value == "LOADING" and instance.state in {InstanceState.STARTING, InstanceState.LOADING}


def _device(instance: Instance) -> str:
    return {"KIND_CPU": "CPU", "KIND_MODEL": "model"}.get(instance.spec.kind, f"GPU {instance.spec.device}")


def _wrap(cell: str) -> list[str]:
    lines = [line.rstrip() for line in cell.splitlines() if line.strip()] or [""]
    return [part for line in lines for part in textwrap.wrap(line, _WIDEST, drop_whitespace=False) or [""]]

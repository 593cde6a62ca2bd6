"""The `sequence_batching` block of a model's configuration: what it means, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # descriptions are read in models' environments, too, which need not have protobuf
    from configs.tree import Node

DEFAULT_IDLE_MICROSECONDS = 1_000_000
_CORRID = "CONTROL_SEQUENCE_CORRID"
_PAIRS = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}
_CORRID_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")


@dataclass(frozen=True, slots=True)
class Control:
    """An input that tells the model about the sequence; `kind` is START, END, READY or CORRID.

    `false` and `true` are what it reads in all kinds but CORRID.
    """

    kind: str
    name: str
    datatype: str
    false: float = 0
    true: float = 0


@dataclass(frozen=True, slots=True)
class SequenceBatching:
    """How sequences are scheduled. `slots` is how many of them an instance takes at a time."""

    is_direct: bool
    slots: int
    max_idle: float
    max_queue_delay: float = 0.0
    minimum_slot_utilization: float = 0.0
    preferred_batch_size: tuple[int, ...] = ()
    controls: tuple[Control, ...] = ()
    is_iterative: bool = False
    has_state: bool = False


def from_wire(data: dict[str, Any]) -> SequenceBatching:
    """The mirror of `dataclasses.asdict`."""
    controls = tuple(Control(**control) for control in data["controls"])
    return SequenceBatching(
        **{**data, "preferred_batch_size": tuple(data["preferred_batch_size"]), "controls": controls}
    )


def read(form: dict[str, Any]) -> SequenceBatching | None:
    """The block of a normalised configuration, None when there is none."""
    block = form.get("sequence_batching")
    if block is None:
        return None
    oldest = block.get("oldest")
    direct = block.get("direct", {})
    batch = max(1, form["max_batch_size"])
    return SequenceBatching(
        is_direct=oldest is None,
        slots=batch if oldest is None else oldest["max_candidate_sequences"] or batch,
        max_idle=block["max_sequence_idle_microseconds"] / 1e6,
        max_queue_delay=(direct if oldest is None else oldest).get("max_queue_delay_microseconds", 0) / 1e6,
        minimum_slot_utilization=direct.get("minimum_slot_utilization", 0.0),
        preferred_batch_size=() if oldest is None else tuple(oldest["preferred_batch_size"]) or (batch,),
        controls=tuple(
            _control(entry["name"], control) for entry in block["control_input"] for control in entry["control"]
        ),
        is_iterative=block["iterative_sequence"],
        has_state=bool(block["state"]),
    )


def _control(name: str, form: dict[str, Any]) -> Control:
    kind = form["kind"].removeprefix("CONTROL_SEQUENCE_")
    for field, datatype in _PAIRS.items():
        if form[field]:
            false, true = form[field]
            return Control(kind, name, datatype, false, true)
    datatype = form["data_type"].removeprefix("TYPE_")
    return Control(kind, name, "BYTES" if datatype == "STRING" else datatype)


def normalise(form: dict[str, Any]) -> None:
    """Fill in the defaults that depend on others; replaces the block in `form`."""
    block = form.get("sequence_batching")
    if block is None:
        return
    form["sequence_batching"] = block = {**block}
    block["max_sequence_idle_microseconds"] = block["max_sequence_idle_microseconds"] or DEFAULT_IDLE_MICROSECONDS
    oldest = block.get("oldest")
    if oldest is not None and not oldest["preferred_batch_size"] and form["max_batch_size"] > 0:
        block["oldest"] = {**oldest, "preferred_batch_size": [form["max_batch_size"]]}


# ----------------------------------------------------------------------------------------------- what may be wrong


def problems(config: Node, model: str) -> Iterator[str]:
    """One line for each problem of a ModelConfig's block."""
    block: Node | None = config.get("sequence_batching")
    if block is None:
        return
    seen: dict[str, set[str]] = {"name": set(), "kind": set()}
    for entry in block.get("control_input"):
        for control in entry.get("control"):
            for text in _control_problems(entry.get("name"), control, seen):
                yield f"{control.position}: {text.replace('$', model)}"
    yield from _strategy_problems(block, config.get("max_batch_size"), model)
    names: set[str] = set()
    for state in block.get("state"):
        for text in _state_problems(state, names):
            yield f"{state.position}: {text}"


def _control_problems(name: str, control: Node, seen: dict[str, set[str]]) -> Iterator[str]:
    """What is wrong with one control; `$` stands for the model."""
    kind = control.get("kind")
    given = [field for field in _PAIRS if control.get(field)]
    if not name:
        yield "sequence batching control tensor must have a name for $"
    elif name in seen["name"]:
        yield f"sequence batching control tensor '{name}' is specified for multiple control kinds for $"
    if kind in seen["kind"]:
        yield f"sequence batching specifies multiple {kind} tensors for $"
    seen["name"].add(name)
    seen["kind"].add(kind)
    pairs = "'int32_false_true', 'fp32_false_true' and 'bool_false_true'"
    if kind == _CORRID:
        if given:
            yield f"sequence batching must not specify either {pairs.replace(' and', ' or')} for {kind} for $"
        if control.get("data_type") not in _CORRID_TYPES:
            allowed = f"{', '.join(_CORRID_TYPES[:-1])} and {_CORRID_TYPES[-1]}"
            yield f"unexpected data type for control {kind} for $. Allowed data types are {allowed}"
    elif not given:
        yield f"sequence batching must specify either {pairs.replace(' and', ' or')} for {kind} for $"
    elif len(given) > 1:
        yield f"sequence batching specifies more than one from {pairs} for {kind} for $"
    elif len(control.get(given[0])) != 2:
        yield f"sequence batching control '{given[0]}' must have exactly 2 entries for {kind} for $"


def _strategy_problems(block: Node, max_batch_size: int, model: str) -> Iterator[str]:
    oldest: Node | None = block.get("oldest")
    direct: Node | None = block.get("direct")
    if oldest is not None:
        at = oldest.at("preferred_batch_size")
        for size in oldest.get("preferred_batch_size"):
            if size <= 0:
                yield f"{at}: sequence batching preferred batch size must be positive for {model}"
            elif size > max_batch_size:
                yield f"{at}: sequence batching preferred batch size must be <= max batch size for {model}"
        if oldest.get("max_candidate_sequences") < 0:
            at = oldest.at("max_candidate_sequences")
            yield f"{at}: 'max_candidate_sequences' must be non-negative value for {model}"
    if direct is not None and not 0 <= direct.get("minimum_slot_utilization") <= 1:
        at = direct.at("minimum_slot_utilization")
        yield f"{at}: sequence batching minimum slot utilization must be in range (0.0, 1.0] for {model}"


def _state_problems(state: Node, names: set[str]) -> Iterator[str]:
    name, dims = state.get("input_name"), state.get("dims")
    if not name or not state.get("output_name"):
        yield "a state must specify 'input_name' and 'output_name'"
    if name in names:
        yield f"State input name '{name}' specified more than once."
    names.add(name)
    if state.get("data_type") == "TYPE_INVALID":
        yield f"state '{name}' must specify 'data_type'"
    if any(dim < 1 and dim != -1 for dim in dims):
        yield f"state '{name}' dimension must be integer >= 1, or -1 to indicate a variable-size dimension"
    initial = state.get("initial_state")
    if len(initial) > 1:
        yield (
            f"initial_state field for state input '{name}' must contain exactly one or zero element. "
            f"Found '{len(initial)}' elements."
        )
    for each in initial[:1]:
        yield from _initial_problems(each, state)


def _initial_problems(initial: Node, state: Node) -> Iterator[str]:
    name, dims, wanted = state.get("input_name"), initial.get("dims"), state.get("dims")
    if initial.get("data_type") != state.get("data_type"):
        yield (f"The data type used for 'initial_state' field of state '{name}' does not match the state data type.")
    if not initial.get("name"):
        yield f"Field 'name' must be set when using initial_state for state input '{name}'."
    if len(dims) != len(wanted):
        yield (
            "Number of dimensions in 'initial_state' doesn't match the size of 'state' dimensions for state input "
            f"'{name}'. {len(dims)} != {len(wanted)}"
        )
        return
    if any(dim < 0 for dim in dims):
        yield f"'initial_state' field for state input name '{name}' contains variable dimensions."
        return
    for given, dim in zip(dims, wanted, strict=True):
        if dim not in (-1, given):
            yield f"'initial_state' dim for input name '{name}' doesn't match 'state' dim description. {given} != {dim}"
    if "data_file" in initial:
        file = PurePosixPath(initial.get("data_file"))
        if file.is_absolute() or ".." in file.parts or not file.parts:
            yield f"initial_state file '{file}' must be a path inside the model's directory initial_state"
    elif "zero_data" not in initial:
        yield f"initial_state setting expects state'{name}' to have state_data set"

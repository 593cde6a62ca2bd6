"""`sequence_batching` in a configuration: what it comes to, and Triton's words for what is wrong."""

from dataclasses import asdict
from pathlib import Path

import msgpack
import pytest

from configs import model, sequences
from configs.errors import ConfigError
from configs.sequences import Control, SequenceBatching
from configs.server import ServerConfig

PAIR = "int32_false_true: [ 0, 1 ]"


def described(directory: Path, block: str, max_batch_size: int = 8) -> SequenceBatching:
    """The block of a model with this configuration. Raises ConfigError."""
    (directory / "m" / "1").mkdir(parents=True, exist_ok=True)
    (directory / "m" / "1" / "model.py").touch()
    (directory / "m" / "config.pbtxt").write_text(
        f'backend: "python"\nmax_batch_size: {max_batch_size}\nsequence_batching {{ {block} }}\n'
    )
    found = model.describe(directory / "m", None, ServerConfig(), []).sequence_batching
    assert found is not None
    assert sequences.from_wire(msgpack.unpackb(msgpack.packb(asdict(found)))) == found
    return found


@pytest.mark.parametrize(
    ("block", "max_batch_size", "expected"),
    [
        ("", 8, SequenceBatching(True, 8, 1.0)),
        ("", 0, SequenceBatching(True, 1, 1.0)),
        ("max_sequence_idle_microseconds: 0", 8, SequenceBatching(True, 8, 1.0)),
        (
            "direct { max_queue_delay_microseconds: 500 minimum_slot_utilization: 0.5 } "
            "max_sequence_idle_microseconds: 5000000",
            4,
            SequenceBatching(True, 4, 5.0, 0.0005, 0.5),
        ),
        ("oldest { }", 8, SequenceBatching(False, 8, 1.0, preferred_batch_size=(8,))),
        ("oldest { }", 0, SequenceBatching(False, 1, 1.0, preferred_batch_size=(1,))),
        (
            "oldest { max_candidate_sequences: 100 preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 1000 }",
            8,
            SequenceBatching(False, 100, 1.0, 0.001, preferred_batch_size=(2, 4)),
        ),
        ("iterative_sequence: true", 8, SequenceBatching(True, 8, 1.0, is_iterative=True)),
    ],
)
def test_what_a_block_means(tmp_path: Path, block: str, max_batch_size: int, expected: SequenceBatching) -> None:
    assert described(tmp_path, block, max_batch_size) == expected


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ("kind: CONTROL_SEQUENCE_START int32_false_true: [ 3, 7 ]", Control("START", "c", "INT32", 3, 7)),
        ("kind: CONTROL_SEQUENCE_END fp32_false_true: [ -1.5, 1 ]", Control("END", "c", "FP32", -1.5, 1)),
        ("kind: CONTROL_SEQUENCE_READY bool_false_true: [ true, false ]", Control("READY", "c", "BOOL", True, False)),
        ("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32", Control("CORRID", "c", "INT32")),
        ("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING", Control("CORRID", "c", "BYTES")),
    ],
)
def test_controls(tmp_path: Path, control: str, expected: Control) -> None:
    found = described(tmp_path, f'control_input [ {{ name: "c" control [ {{ {control} }} ] }} ]')
    assert found.controls == (expected,)


def test_states_are_known_to_be_there(tmp_path: Path) -> None:
    assert described(tmp_path, state()).has_state


def state(more: str = "", name: str = "X", dims: str = "[ 2 ]") -> str:
    return f'state [ {{ input_name: "{name}" output_name: "Y" data_type: TYPE_INT32 dims: {dims} {more} }} ]'


def initial(more: str, dims: str = "[ 2 ]", data_type: str = "TYPE_INT32", name: str = "i") -> str:
    return f'initial_state {{ name: "{name}" data_type: {data_type} dims: {dims} {more} }}'


def controls(*entries: tuple[str, str]) -> str:
    return " ".join(f'control_input [ {{ name: "{name}" control [ {{ {text} }} ] }} ]' for name, text in entries)


K = "CONTROL_SEQUENCE_START"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (controls(("", f"kind: {K} {PAIR}")), "sequence batching control tensor must have a name for m"),
        (
            controls(("c", f"kind: {K} {PAIR}"), ("c", f"kind: CONTROL_SEQUENCE_END {PAIR}")),
            "sequence batching control tensor 'c' is specified for multiple control kinds for m",
        ),
        (
            controls(("c", f"kind: {K} {PAIR}"), ("d", f"kind: {K} {PAIR}")),
            f"sequence batching specifies multiple {K} tensors for m",
        ),
        (
            controls(("c", f"kind: {K}")),
            "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for "
            f"{K} for m",
        ),
        (
            controls(("c", f"kind: {K} {PAIR} fp32_false_true: [ 0, 1 ]")),
            "sequence batching specifies more than one from 'int32_false_true', 'fp32_false_true' and "
            f"'bool_false_true' for {K} for m",
        ),
        (
            controls(("c", f"kind: {K} bool_false_true: [ true ]")),
            f"sequence batching control 'bool_false_true' must have exactly 2 entries for {K} for m",
        ),
        (
            controls(("c", f"kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 {PAIR}")),
            "sequence batching must not specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for "
            "CONTROL_SEQUENCE_CORRID for m",
        ),
        (
            controls(("c", "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32")),
            "unexpected data type for control CONTROL_SEQUENCE_CORRID for m. Allowed data types are TYPE_UINT64, "
            "TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING",
        ),
        ("oldest { preferred_batch_size: 0 }", "sequence batching preferred batch size must be positive for m"),
        (
            "oldest { preferred_batch_size: 9 }",
            "sequence batching preferred batch size must be <= max batch size for m",
        ),
        (
            "direct { minimum_slot_utilization: 1.5 }",
            "sequence batching minimum slot utilization must be in range (0.0, 1.0] for m",
        ),
        (f"{state()} {state()}", "State input name 'X' specified more than once."),
        (
            state(f"{initial('zero_data: true')} {initial('zero_data: true')}"),
            "initial_state field for state input 'X' must contain exactly one or zero element. Found '2' elements.",
        ),
        (
            state(initial("zero_data: true", data_type="TYPE_FP32")),
            "The data type used for 'initial_state' field of state 'X' does not match the state data type.",
        ),
        (
            state(initial("zero_data: true", name="")),
            "Field 'name' must be set when using initial_state for state input 'X'.",
        ),
        (
            state(initial("zero_data: true", dims="[ 2, 2 ]")),
            "Number of dimensions in 'initial_state' doesn't match the size of 'state' dimensions for state input "
            "'X'. 2 != 1",
        ),
        (
            state(initial("zero_data: true", dims="[ -1 ]")),
            "'initial_state' field for state input name 'X' contains variable dimensions.",
        ),
        (
            state(initial("zero_data: true", dims="[ 3 ]")),
            "'initial_state' dim for input name 'X' doesn't match 'state' dim description. 3 != 2",
        ),
        (state(initial("")), "initial_state setting expects state'X' to have state_data set"),
        (
            state(initial('data_file: "../x"')),
            "initial_state file '../x' must be a path inside the model's directory initial_state",
        ),
        (state(dims="[ 0 ]"), "state 'X' dimension must be integer >= 1, or -1 to indicate a variable-size dimension"),
        (state(name=""), "a state must specify 'input_name' and 'output_name'"),
    ],
)
def test_what_is_wrong_is_said_in_tritons_words_with_its_place(tmp_path: Path, block: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        described(tmp_path, block)
    (line,) = str(error.value).splitlines()
    place, _, text = line.partition(": ")
    assert text == expected
    assert place.endswith(tuple("0123456789"))

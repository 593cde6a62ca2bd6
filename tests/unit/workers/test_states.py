"""Implicit state: what a sequence's next request gets, and what its client does not see."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode, Item
from tests.unit.workers.support import request, spec, tensor
from workers.errors import BackendError
from workers.outcome import AGAIN, Output, Response
from workers.states import START, States, create


def config(state: dict[str, Any], max_batch_size: int = 4, **more: Any) -> dict[str, Any]:
    """A model with one state, `before` and `after`."""
    full = {"input_name": "before", "output_name": "after", "data_type": "TYPE_INT32", "dims": [2], "initial_state": []}
    return {
        "max_batch_size": max_batch_size,
        "output": [tensor("OUT", "TYPE_INT32", 2)],
        "sequence_batching": {"control_input": [], "state": [{**full, **state}]},
        **more,
    }


def states(directory: Path, state: dict[str, Any] | None = None, **more: Any) -> States:
    model = spec(directory, config(state or {}, **more))
    made = create(model, model.max_batch_size)
    assert made is not None
    return made


def item(flags: int = 0) -> Item:
    return request(IN=np.zeros((1, 1), np.int32))._replace(flags=flags)


def numbers(found: tuple[Item, ...]) -> list[list[int]]:
    """The state of each request."""
    return [list(struct.unpack(f"<{len(i.inputs[-1].data or b'') // 4}i", i.inputs[-1].data or b"")) for i in found]


def answer(*values: int, name: str = "after", datatype: str = "INT32") -> Response:
    data = struct.pack(f"<{len(values)}i", *values)
    return Response([Output("OUT", "INT32", (1, 1), b"0000"), Output(name, datatype, (1, len(values)), data)], {})


def test_a_model_without_states_has_none(tmp_path: Path) -> None:
    assert create(spec(tmp_path, {"max_batch_size": 1}), 1) is None


def test_a_state_goes_from_request_to_request_of_its_slot(tmp_path: Path) -> None:
    kept = states(tmp_path)
    first = kept.fill((item(START), item(START)), (0, 1))
    assert numbers(first) == [[0, 0], [0, 0]]
    ref = first[0].inputs[-1]
    assert (ref.name, ref.datatype, ref.shape) == ("before", "INT32", (1, 2))
    kept.keep((0, 1), [answer(1, 2), answer(3, 4)])
    second = kept.fill((item(), item()), (1, 0))
    assert numbers(second) == [[3, 4], [1, 2]]
    kept.keep((1, 0), [answer(5, 6), answer(7, 8, 9)])
    assert numbers(kept.fill((item(START), item()), (1, 0))) == [[0, 0], [7, 8, 9]], "a start resets"


def test_clients_do_not_see_a_state_unless_it_is_an_output(tmp_path: Path) -> None:
    def seen(kept: States) -> list[str]:
        kept.fill((item(START),), (0,))
        (outcome,) = kept.keep((0,), [answer(1, 2)])
        return [output.name for output in outcome.outputs]

    assert seen(states(tmp_path)) == ["OUT"]
    outputs = [tensor("OUT", "TYPE_INT32", 2), tensor("after", "TYPE_INT32", 2)]
    assert seen(states(tmp_path, output=outputs)) == ["OUT", "after"]


@pytest.mark.parametrize(
    "outcome", [BackendError(ErrorCode.INTERNAL, "no"), None, AGAIN, answer(9, 9, name="other")], ids=repr
)
def test_a_request_that_gives_no_state_back_changes_none(tmp_path: Path, outcome: Any) -> None:
    kept = states(tmp_path)
    kept.fill((item(START),), (0,))
    kept.keep((0,), [answer(1, 2)])
    kept.fill((item(),), (0,))
    kept.keep((0,), [outcome])
    assert numbers(kept.fill((item(),), (0,))) == [[1, 2]]


def test_a_start_that_fails_resets_all_the_same(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.fill((item(START),), (0,))
    kept.keep((0,), [answer(1, 2)])
    kept.fill((item(START),), (0,))
    kept.keep((0,), [BackendError(ErrorCode.INTERNAL, "no")])
    assert numbers(kept.fill((item(),), (0,))) == [[0, 0]]


def test_a_row_of_nobody_has_no_state_of_its_own(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.fill((item(), item(START)), (-1, 1))
    kept.keep((-1, 1), [answer(1, 2), answer(3, 4)])
    assert numbers(kept.fill((item(), item()), (-1, 1))) == [[0, 0], [3, 4]]


def test_a_state_of_another_datatype_is_an_error(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.fill((item(START),), (0,))
    (outcome,) = kept.keep((0,), [answer(1, 2, datatype="FP32")])
    assert str(outcome) == "state 'after' has datatype FP32, the configuration says INT32"


@pytest.mark.parametrize(
    ("state", "batch", "shape", "data"),
    [
        ({"dims": [2, -1]}, 4, (1, 2, 1), bytes(8)),
        ({"dims": [-1], "initial_state": [{"dims": [3], "zero_data": True}]}, 0, (3,), bytes(12)),
        ({"data_type": "TYPE_STRING"}, 4, (1, 2), bytes(8)),
        ({"data_type": "TYPE_FP16"}, 4, (1, 2), bytes(4)),
        ({"initial_state": [{"dims": [2], "data_file": "given"}]}, 4, (1, 2), b"abcdefgh"),
        (
            {"data_type": "TYPE_STRING", "initial_state": [{"dims": [2], "data_file": "given"}]},
            4,
            (1, 2),
            b"abcdefghij",
        ),
    ],
)
def test_what_a_sequence_starts_with(
    tmp_path: Path, state: dict[str, Any], batch: int, shape: tuple[int, ...], data: bytes
) -> None:
    (tmp_path / "initial_state").mkdir()
    (tmp_path / "initial_state" / "given").write_bytes(b"abcdefghij")
    (filled,) = states(tmp_path, state, max_batch_size=batch).fill((item(START),), (0,))
    assert (filled.inputs[-1].shape, filled.inputs[-1].data) == (shape, data)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("short", "initial_state setting expects 8 bytes, but the data provided from short only has 3 bytes."),
        ("missing", "cannot be read: No such file or directory"),
        ("link", "initial_state file 'link' is outside of "),
    ],
)
def test_files_that_do_not_do(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "initial_state").mkdir()
    (tmp_path / "initial_state" / "short").write_bytes(b"abc")
    (tmp_path / "secret").write_bytes(b"abcdefgh")
    (tmp_path / "initial_state" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BackendError) as error:
        states(tmp_path, {"initial_state": [{"dims": [2], "data_file": name}]})
    assert text in str(error.value)

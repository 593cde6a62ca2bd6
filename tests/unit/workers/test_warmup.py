"""Warm-up requests as they follow from a model's configuration."""

from pathlib import Path
from typing import Any

import pytest

from broker.messages import ErrorCode
from tests.unit.workers.support import spec, tensor
from workers import warmup
from workers.backend import IO, Interface
from workers.errors import BackendError
from workers.warmup import Sample

FLOATS = [tensor("IN", "TYPE_FP32", 4)]


def given(data_type: str = "TYPE_FP32", dims: tuple[int, ...] = (4,), **data: Any) -> dict[str, Any]:
    return {"data_type": data_type, "dims": list(dims), **(data or {"zero_data": True})}


def sample(inputs: dict[str, Any], batch_size: int = 1, count: int = 0, name: str = "w") -> dict[str, Any]:
    return {"name": name, "batch_size": batch_size, "inputs": inputs, "count": count}


def samples(
    directory: Path, *given_samples: dict[str, Any], interface: Interface | None = None, **config: Any
) -> list[Sample]:
    settings = {"max_batch_size": 4, "input": FLOATS, "model_warmup": list(given_samples), **config}
    return list(warmup.samples(spec(directory, settings), interface or Interface()))


def test_a_batch_of_zeros_is_that_many_requests(tmp_path: Path) -> None:
    (one,) = samples(tmp_path, sample({"IN": given()}, batch_size=3, count=2))
    assert (one.name, one.times, len(one.items)) == ("w", 2, 3)
    (ref,) = one.items[0].inputs
    assert (ref.name, ref.datatype, ref.shape, ref.data) == ("IN", "FP32", (1, 4), bytes(16))


def test_no_batch_size_makes_no_requests(tmp_path: Path) -> None:
    (one,) = samples(tmp_path, sample({"IN": given()}, batch_size=0))
    assert one.items == ()


def test_a_model_without_batches_gets_the_shape_as_it_is(tmp_path: Path) -> None:
    (one,) = samples(tmp_path, sample({"IN": given()}), max_batch_size=0)
    assert one.items[0].inputs[0].shape == (4,)


def test_random_data(tmp_path: Path) -> None:
    inputs = [tensor("IN", "TYPE_INT64", 64), tensor("FLAG", "TYPE_BOOL", 64), tensor("TEXT", "TYPE_STRING", 2)]
    random = {
        "IN": given("TYPE_INT64", (64,), random_data=True),
        "FLAG": given("TYPE_BOOL", (64,), random_data=True),
        "TEXT": given("TYPE_STRING", (2,), random_data=True),
    }
    (one,) = samples(tmp_path, sample(random), input=inputs)
    number, flag, text = one.items[0].inputs
    assert number.data is not None
    assert len(set(number.data)) > 10
    assert set(flag.data or b"") == {0, 1}
    assert text.data == bytes(8)  # two empty strings


def test_files_lie_in_the_directory_warmup(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "numbers").write_bytes(bytes(range(20)))
    (tmp_path / "warmup" / "texts").write_bytes(b"\1\0\0\0a")
    files = {
        "IN": given(input_data_file="numbers"),
        "TEXT": given("TYPE_STRING", (1,), input_data_file="texts"),
    }
    (one,) = samples(tmp_path, sample(files), input=[*FLOATS, tensor("TEXT", "TYPE_STRING", 1)])
    assert [ref.data for ref in one.items[0].inputs] == [bytes(range(16)), b"\1\0\0\0a"]


def test_a_reshaped_input_is_as_the_backend_wants_it(tmp_path: Path) -> None:
    inputs = [tensor("IN", "TYPE_FP32", -1, 6, reshape={"shape": [2, -1, 3]})]
    (one,) = samples(tmp_path, sample({"IN": given(dims=(5, 6))}), input=inputs)
    assert one.items[0].inputs[0].shape == (1, 2, 5, 3)


def test_what_the_model_declares_by_itself_counts(tmp_path: Path) -> None:
    interface = Interface((IO("IN", "FP32", (4,)),), (), {"max_batch_size": 2})
    (one,) = samples(tmp_path, sample({"IN": given()}, batch_size=2), interface=interface, input=[], max_batch_size=0)
    assert [item.inputs[0].shape for item in one.items] == [(1, 4), (1, 4)]
    with pytest.raises(BackendError, match="expected 1 inputs but got 0 inputs"):
        samples(tmp_path, sample({}), interface=interface, input=[])


def test_inputs_that_the_model_does_not_declare_are_handed_on(tmp_path: Path) -> None:
    (one,) = samples(tmp_path, sample({"IN": given(), "START": given("TYPE_INT32", (1,))}))
    assert [(ref.name, ref.shape) for ref in one.items[0].inputs] == [("IN", (1, 4)), ("START", (1, 1))]


@pytest.mark.parametrize(
    ("inputs", "batch_size", "code", "text"),
    [
        (
            {"IN": given()},
            9,
            ErrorCode.INVALID_ARG,
            "failed to run warmup sample 'w': batch size 9 for 'm_0_0', max allowed is 4; ",
        ),
        (
            {"IN": given("TYPE_INT32")},
            1,
            ErrorCode.INVALID_ARG,
            "[request id: <id_unknown>] inference input 'IN' data-type is 'INT32', but model 'm' expects 'FP32' "
            "(warmup sample 'w')",
        ),
        (
            {"IN": given(dims=(7,))},
            1,
            ErrorCode.INVALID_ARG,
            "[request id: <id_unknown>] unexpected shape for input 'IN' for model 'm'. Expected [-1,4], got [1,7]. "
            "(warmup sample 'w')",
        ),
        (
            {},
            1,
            ErrorCode.INVALID_ARG,
            "[request id: <id_unknown>] expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing "
            "required input(s) ['IN']. Please provide all required input(s). (warmup sample 'w')",
        ),
        (
            {"IN": given(input_data_file="short")},
            1,
            ErrorCode.INVALID_ARG,
            "[request id: <id_unknown>] warmup setting expects 16 bytes, but the data provided from short only has 4 "
            "bytes (warmup sample 'w')",
        ),
        (
            {"IN": given(input_data_file="../../secret")},
            1,
            ErrorCode.INVALID_ARG,
            "input_data_file '../../secret' is outside model directory (warmup sample 'w')",
        ),
        (
            {"IN": given(input_data_file="none")},
            1,
            ErrorCode.INTERNAL,
            "failed to open text file for read DIRECTORY/warmup/none: No such file or directory (warmup sample 'w')",
        ),
    ],
)
def test_what_is_wrong_is_said_in_triton_s_words_with_the_sample(
    tmp_path: Path, inputs: dict[str, Any], batch_size: int, code: ErrorCode, text: str
) -> None:
    directory = tmp_path / "m"
    (directory / "warmup").mkdir(parents=True)
    (directory / "warmup" / "short").write_bytes(b"1234")
    (tmp_path / "secret").write_bytes(bytes(16))
    with pytest.raises(BackendError) as raised:
        samples(directory, sample(inputs, batch_size))
    assert str(raised.value) == text.replace("DIRECTORY", str(directory))
    assert raised.value.code == code

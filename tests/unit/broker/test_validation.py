"""Every refusal of a request, in Triton's words and order; reshape; raw requests."""

import time
from typing import Any

import pytest

from broker.messages import ErrorCode
from broker.validation import Accepted, Rejected, Signature, restore_shape, validate
from configs.description import TensorSpec
from shm.arena import inline
from shm.ref import TensorRef
from tests.unit.broker.describe import infer, tensor

A, B = TensorSpec("A", "FP32", (4,)), TensorSpec("B", "INT32", (-1, 2))
OUT = TensorSpec("OUT", "FP32", (4,))
BATCHING = Signature("m", 8, (A, B), (OUT,))
PLAIN = Signature("m", 0, (A, B), (OUT,))
OPTIONAL = Signature("m", 0, (A, TensorSpec("O", "FP32", (1,), optional=True)), (OUT,))
UNDECLARED = Signature("m", 0, (), ())

GOOD_A, GOOD_B = tensor("A", "FP32", (4,), 16), tensor("B", "INT32", (3, 2), 24)
BATCH_A, BATCH_B = tensor("A", "FP32", (2, 4), 32), tensor("B", "INT32", (2, 3, 2), 48)


def check(signature: Signature, *inputs: TensorRef, **changes: Any) -> Accepted:
    return validate(signature, infer(1, inputs=inputs, **{"request_id": "7", **changes}))


def refusal(signature: Signature, *inputs: TensorRef, **changes: Any) -> str:
    with pytest.raises(Rejected) as caught:
        check(signature, *inputs, **changes)
    assert caught.value.code is ErrorCode.INVALID_ARG
    return str(caught.value)


def test_what_is_right_passes() -> None:
    assert check(PLAIN, GOOD_A, GOOD_B) == Accepted((GOOD_A, GOOD_B), 1)
    assert check(PLAIN, GOOD_B, GOOD_A, outputs=("OUT",)).batch == 1
    assert check(BATCHING, BATCH_A, BATCH_B) == Accepted((BATCH_A, BATCH_B), 2)
    assert check(OPTIONAL, GOOD_A).batch == 1
    assert check(PLAIN, GOOD_A, tensor("B", "INT32", (0, 2), 0)), "-1 is any size, 0 too"
    assert check(PLAIN, GOOD_A._replace(datatype="FP32"), GOOD_B)


# Each tuple breaks one more rule than the next one, so that the order is held, too.
REFUSALS: list[tuple[Signature, tuple[TensorRef, ...], tuple[str, ...], str]] = [
    (PLAIN, (), ("X",), "unexpected inference output 'X' for model 'm'"),
    (PLAIN, (), ("OUT", "OUT"), "output 'OUT' already exists in request"),
    (
        PLAIN,
        (GOOD_B, tensor("Z", "FP32", (), 0), GOOD_A),
        (),
        "[request id: 7] expected 2 inputs but got 3 inputs for model 'm'. Got input(s) ['A','B','Z'], but missing "
        "required input(s) ]. Please provide all required input(s).",
    ),
    (
        PLAIN,
        (),
        (),
        "[request id: 7] expected 2 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required "
        "input(s) ['A','B']. Please provide all required input(s).",
    ),
    (
        OPTIONAL,
        (),
        (),
        "[request id: 7] expected number of inputs between 1 and 2 but got 0 inputs for model 'm'. Got input(s) [], "
        "but missing required input(s) ['A']. Please provide all required input(s).",
    ),
    (PLAIN, (GOOD_A, GOOD_A), (), "[request id: 7] input 'A' already exists in request"),
    (PLAIN, (GOOD_A, tensor("X", "FP32", (4,), 16)), (), "unexpected inference input 'X' for model 'm'"),
    (
        OPTIONAL,
        (tensor("O", "FP32", (1,), 4),),
        (),
        "[request id: 7] expected number of inputs between 1 and 2 but got 1 inputs for model 'm'. Got input(s) ['O'], "
        "but missing required input(s) ['A']. Please provide all required input(s).",
    ),
    (
        BATCHING,
        (tensor("A", "FP32", (), 4), BATCH_B),
        (),
        "[request id: 7] input 'A' has no shape but model requires batch dimension for 'm'",
    ),
    (
        BATCHING,
        (tensor("A", "FP32", (9, 4), 144), BATCH_B),
        (),
        "[request id: 7] input 'B' batch size does not match other inputs for 'm'",
    ),
    (
        BATCHING,
        (tensor("A", "INT8", (9, 4), 36), tensor("B", "INT32", (9, 3, 2), 216)),
        (),
        "[request id: 7] inference request batch-size must be <= 8 for 'm'",
    ),
    (
        BATCHING,
        (tensor("A", "INT32", (2, -1), 32), BATCH_B),
        (),
        "[request id: 7] inference input 'A' data-type is 'INT32', but model 'm' expects 'FP32'",
    ),
    (
        BATCHING,
        (tensor("A", "fp32", (2, 4), 32), BATCH_B),
        (),
        "[request id: 7] inference input 'A' data-type is '<invalid>', but model 'm' expects 'FP32'",
    ),
    (
        PLAIN,
        (tensor("A", "FP32", (-1,), 8), GOOD_B),
        (),
        "[request id: 7] All input dimensions should be specified for input 'A' for model 'm', got [-1]",
    ),
    (
        PLAIN,
        (GOOD_A, tensor("B", "INT32", (3, 3), 12)),
        (),
        "[request id: 7] unexpected shape for input 'B' for model 'm'. Expected [-1,2], got [3,3]. ",
    ),
    (
        PLAIN,
        (tensor("A", "FP32", (2, 2), 16), GOOD_B),
        (),
        "[request id: 7] unexpected shape for input 'A' for model 'm'. Expected [4], got [2,2]. ",
    ),
    (
        PLAIN,
        (GOOD_A._replace(byte_size=12), GOOD_B),
        (),
        "[request id: 7] input byte size mismatch for input 'A' for model 'm'. Expected 16, got 12",
    ),
    (
        Signature("m", 8, (TensorSpec("A", "FP32", (1,)),), ()),
        (tensor("A", "FP32", (0, 1), 0),),
        (),
        "[request id: 7] input byte size mismatch for input 'A' for model 'm'. Expected 4, got 0",
    ),
]


@pytest.mark.parametrize(("signature", "inputs", "outputs", "text"), REFUSALS)
def test_refusals(signature: Signature, inputs: tuple[TensorRef, ...], outputs: tuple[str, ...], text: str) -> None:
    assert refusal(signature, *inputs, outputs=outputs) == text


def test_a_shape_without_batch_dimension_gets_advice() -> None:
    text = refusal(Signature("m", 8, (A,), ()), tensor("A", "FP32", (4,), 16))
    assert text.startswith(
        "[request id: 7] unexpected shape for input 'A' for model 'm'. Expected [-1,4], got [4]. NOTE: Setting a "
        "non-zero max_batch_size in the model config requires a batch dimension to be prepended to each input shape."
    )


def test_a_request_without_id() -> None:
    assert refusal(PLAIN, request_id="").startswith("[request id: <id_unknown>] expected 2 inputs")


def test_what_a_model_does_not_declare_is_not_checked() -> None:
    loose = Signature("m", 0, (TensorSpec("A", "", None),), ())
    for datatype, shape, size in (("FP32", (2, 3), 24), ("INT8", (), 1), ("BYTES", (5,), 1000)):
        assert check(loose, tensor("A", datatype, shape, size), outputs=("anything",)).batch == 1
    assert "Expected 24, got 20" in refusal(loose, tensor("A", "FP32", (2, 3), 20))
    assert "expects 'any datatype of the protocol'" in refusal(loose, tensor("A", "FLOAT", (1,), 4))


def test_no_request_takes_long_to_refuse() -> None:
    began = time.process_time()
    loose = Signature("m", 0, (TensorSpec("A", "", None),), ())
    assert "byte size mismatch" in refusal(loose, tensor("A", "FP32", (2**62,) * 100_000, 4))
    assert check(loose, tensor("A", "FP32", (2**62,) * 100_000 + (0,), 0))
    many = [GOOD_A._replace(name=str(number)) for number in range(50_000)]
    assert "but got 50000 inputs" in refusal(PLAIN, *many)
    assert "already exists" in refusal(PLAIN, *many, many[0])
    names = tuple(str(number) for number in range(50_000))
    assert check(loose, tensor("A", "FP32", (1,), 4), outputs=names)
    assert "already exists" in refusal(loose, tensor("A", "FP32", (1,), 4), outputs=(*names, "7"))
    assert time.process_time() - began < 2


# ------------------------------------------------------------------------------------------- reshape


def test_inputs_are_reshaped_for_the_model() -> None:
    spec = TensorSpec("A", "FP32", (-1, 2, -1), reshape=(2, -1, -1))
    accepted = check(Signature("m", 0, (spec,), ()), tensor("A", "FP32", (3, 2, 5), 120))
    assert accepted.inputs[0].shape == (2, 3, 5)
    batched = check(Signature("m", 8, (spec,), ()), tensor("A", "FP32", (4, 3, 2, 5), 480))
    assert batched.inputs[0].shape == (4, 2, 3, 5)
    scalar = TensorSpec("A", "FP32", (1,), reshape=())
    assert check(Signature("m", 8, (scalar,), ()), tensor("A", "FP32", (4, 1), 16)).inputs[0].shape == (4,)


def test_outputs_get_the_shape_that_clients_know() -> None:
    signature = Signature("m", 8, (), (TensorSpec("OUT", "FP32", (-1, 2, -1), reshape=(2, -1, -1)),))
    assert restore_shape(signature, tensor("OUT", "FP32", (4, 2, 3, 5), 480)).shape == (4, 3, 2, 5)
    assert restore_shape(signature, tensor("ANOTHER", "FP32", (4, 2), 32)).shape == (4, 2)


@pytest.mark.parametrize("shape", [(), (4,), (4, 2, 3), (4, 2, 3, 5, 1)])
def test_an_output_that_is_not_as_declared_stays_as_it_is(shape: tuple[int, ...]) -> None:
    signature = Signature("m", 8, (), (TensorSpec("OUT", "FP32", (-1, 2, -1), reshape=(2, -1, -1)),))
    assert restore_shape(signature, tensor("OUT", "FP32", shape, 4)).shape == shape


# ------------------------------------------------------------------------------------------- raw requests

ROOM = b"\x05\0\0\0"


def raw(size: int) -> TensorRef:
    return TensorRef("", "", (), size, None, "tidepool-s-f-0", 64, 3, 9)


def test_a_raw_request_is_described_by_its_model_and_size() -> None:
    spec = TensorSpec("A", "FP32", (-1, 2))
    plain = check(Signature("m", 0, (spec,), ()), raw(24), is_raw=True).inputs[0]
    assert plain == TensorRef("A", "FP32", (3, 2), 24, None, "tidepool-s-f-0", 64, 3, 9)
    batched = check(Signature("m", 8, (spec,), ()), raw(24), is_raw=True)
    assert (batched.inputs[0].shape, batched.batch) == ((1, 3, 2), 1)
    assert check(Signature("m", 0, (spec,), ()), raw(0), is_raw=True).inputs[0].shape == (0, 2)


def test_a_raw_request_inside_the_message_loses_the_room_before_its_data() -> None:
    spec = TensorSpec("A", "UINT8", (5,))
    given = inline("", "", (), ROOM + b"hello")._replace(byte_size=5)
    assert check(Signature("m", 0, (spec,), ()), given, is_raw=True).inputs[0] == inline("A", "UINT8", (5,), b"hello")


def test_a_raw_request_for_text_takes_the_length_in_the_room_before_its_data() -> None:
    signature = Signature("m", 0, (TensorSpec("A", "BYTES", (1,)),), ())
    here = check(signature, raw(5), is_raw=True).inputs[0]
    assert (here.offset, here.byte_size, here.shape) == (60, 9, (1,))
    given = inline("", "", (), ROOM + b"hello")._replace(byte_size=5)
    assert check(signature, given, is_raw=True).inputs[0] == inline("A", "BYTES", (1,), ROOM + b"hello")
    batched = signature._replace(max_batch_size=4)
    assert check(batched, raw(5), is_raw=True).inputs[0].shape == (1, 1)


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        (
            PLAIN,
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'm' model configuration",
        ),
        (
            Signature("m", 0, (TensorSpec("A", "FP32", (-1, -1)),), ()),
            "The shape of the raw input 'A' can not be deduced because there are more than one variable-sized "
            "dimension",
        ),
        (
            Signature("m", 0, (TensorSpec("A", "BYTES", (-1,)),), ()),
            "For BYTE datatype raw input 'A', the model must have input shape [1]",
        ),
        (
            Signature("m", 0, (TensorSpec("A", "", None),), ()),
            "The shape of the raw input 'A' can not be deduced: model 'm' declares none",
        ),
        (
            Signature("m", 0, (TensorSpec("A", "FP32", (-1, 2)),), ()),
            "input byte size mismatch for input 'A' for model 'm'. Expected 24, got 25",
        ),
    ],
)
def test_raw_requests_that_cannot_be_deduced(signature: Signature, text: str) -> None:
    assert refusal(signature, raw(25), is_raw=True) == f"[request id: 7] {text}"

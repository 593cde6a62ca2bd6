"""`triton_python_backend_utils` as models see it."""

import numpy as np
import pytest

from broker.messages import ErrorCode
from tests.unit.workers.support import arrays, no_inputs, ref
from workers import pb_utils
from workers.autocomplete import ModelConfig
from workers.errors import BackendError
from workers.pb_utils import InferenceResponse, Tensor, TritonError, TritonModelException


def test_the_names_that_models_use() -> None:
    for name in pb_utils.__all__:
        assert hasattr(pb_utils, name)


def test_datatypes() -> None:
    assert pb_utils.triton_string_to_numpy("TYPE_FP32") is np.float32
    assert pb_utils.triton_string_to_numpy("TYPE_BOOL") is bool
    for unknown in ("FP32", "TYPE_BF16"):
        with pytest.raises(KeyError):
            pb_utils.triton_string_to_numpy(unknown)
    for code in range(1, 14):
        assert pb_utils.numpy_to_triton_type(pb_utils.triton_to_numpy_type(code)) == code
    assert [pb_utils.triton_to_numpy_type(c) for c in (1, 2, 9, 11, 13, 14)] == [
        np.bool_,
        np.uint8,
        np.int64,
        np.float32,
        np.object_,
        None,
    ]
    assert [pb_utils.numpy_to_triton_type(t) for t in (np.bytes_, np.str_, np.complex64, bool)] == [
        13,
        None,
        None,
        None,
    ]


def test_byte_tensors() -> None:
    array = np.array([["a", b"\0"]], dtype=np.object_)
    data = pb_utils.serialize_byte_tensor(array)
    assert data == b"\1\0\0\0a\1\0\0\0\0"
    assert pb_utils.deserialize_bytes_tensor(data).tolist() == [b"a", b"\0"]
    assert pb_utils.serialize_byte_tensor(np.array([], dtype=np.object_)) == ()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
        np.zeros((0, 3), dtype=np.int8),
        np.array(5, dtype=np.uint16),
        np.array([True, False]),
        np.array([b"abc", b"d"]),
        np.array([[b"a"], [b"\0"]], dtype=np.object_),
        np.zeros(5000, dtype=np.float16)[::2],
    ],
)
def test_what_an_output_carries(array: np.ndarray) -> None:
    tensor = Tensor("y", array)
    assert tensor.shape() == list(array.shape)
    assert tensor.as_numpy() is array
    received = arrays(InferenceResponse([tensor]).outcome())["y"]
    assert received.dtype.kind == {"S": "O"}.get(array.dtype.kind, array.dtype.kind)
    assert received.shape == array.shape
    assert received.tolist() == array.tolist()


def test_what_no_tensor_can_be_made_of() -> None:
    for value in (1, [1], np.float32(1)):
        with pytest.raises(TypeError):
            Tensor("x", value)  # type: ignore[arg-type]  # what users do
    with pytest.raises(TritonModelException, match="Tensor name cannot be an empty string"):
        Tensor("", np.ones(1))
    with pytest.raises(TritonModelException, match="is not text"):
        Tensor("\udcff", np.ones(1))
    for array in (np.array(["u"]), np.ones(1, dtype=complex), np.ones(1, dtype=">f4")):
        with pytest.raises(TritonModelException, match="NumPy dtype is not supported"):
            Tensor("x", array)


def test_strings_that_are_no_bytes() -> None:
    outcome = InferenceResponse([Tensor("y", np.array(["é", 5, b"b"], dtype=np.object_))]).outcome()
    assert arrays(outcome)["y"].tolist() == ["é".encode(), b"5", b"b"]


def test_responses() -> None:
    with pytest.raises(TritonModelException, match="Expect parameters values to have type bool/int/str, found type"):
        InferenceResponse([], parameters={"a": 1.5})
    with pytest.raises(TypeError, match="the name of a parameter must be a str"):
        InferenceResponse([], parameters={1: 1})  # type: ignore[dict-item]  # what users do
    with pytest.raises(TritonModelException, match="'a' does not fit into 64 bits"):
        InferenceResponse([], parameters={"a": 1 << 63})
    with pytest.raises(TritonModelException, match="is not text"):
        InferenceResponse([], parameters={"a": "\udcff"})
    with pytest.raises(TypeError, match=r"must be a pb_utils.Tensor, not a ndarray"):
        InferenceResponse([np.ones(1)])  # type: ignore[list-item]  # what users do
    with pytest.raises(TritonModelException, match="Output tensor for inference response should not be empty"):
        InferenceResponse([None])  # type: ignore[list-item]  # what users do
    response = InferenceResponse(error=TritonError("no", TritonError.CANCELLED), parameters={"a": True})
    assert response.has_error()
    assert response.parameters() == '{"a": true}'
    outcome = response.outcome()
    assert isinstance(outcome, BackendError)
    assert (outcome.code, str(outcome)) == (ErrorCode.CANCELLED, "no")
    assert TritonError("x").code() == TritonError.INTERNAL == 1
    assert not InferenceResponse([]).has_error()
    assert pb_utils.get_output_tensor_by_name(InferenceResponse([Tensor("y", np.ones(1))]), "z") is None


def test_config_helpers() -> None:
    config = {"input": [{"name": "a"}], "output": [], "model_transaction_policy": {"decoupled": True}}
    assert pb_utils.get_input_config_by_name(config, "a") == {"name": "a"}
    assert pb_utils.get_input_config_by_name(config, "b") is None
    assert pb_utils.get_output_config_by_name(config, "a") is None
    assert pb_utils.using_decoupled_model_transaction_policy(config)
    assert not pb_utils.using_decoupled_model_transaction_policy({})


def received(array: np.ndarray, datatype: str = "") -> Tensor:
    return Tensor.received(ref("x", array, datatype), no_inputs())


def test_dlpack_between_numpy_and_tensors() -> None:
    tensor = received(np.arange(4, dtype=np.int32))
    seen = np.from_dlpack(tensor)  # type: ignore[arg-type]  # numpy's stub asks for more than numpy
    tensor.as_numpy()[0] = 9
    assert seen.tolist() == [9, 1, 2, 3]
    assert tensor.__dlpack_device__() == (1, 0)
    for source in (np.arange(3.0), np.arange(3.0).__dlpack__(), received(np.arange(3.0))):
        copy = Tensor.from_dlpack("y", source)
        assert (copy.name(), copy.as_numpy().tolist()) == ("y", [0.0, 1.0, 2.0])
    with pytest.raises(TritonModelException, match="not contiguous"):
        Tensor.from_dlpack("y", np.ones((2, 3)).T)
    with pytest.raises(TritonModelException, match="does not have support for string tensors"):
        received(np.array([b"a"], dtype=np.object_)).to_dlpack()
    with pytest.raises(TritonModelException, match="cannot be an empty string"):
        Tensor.from_dlpack("", np.ones(1))


def test_dlpack_and_torch() -> None:
    torch = pytest.importorskip("torch")
    assert torch.from_dlpack(received(np.arange(3, dtype=np.float32))).tolist() == [0.0, 1.0, 2.0]
    assert Tensor.from_dlpack("y", torch.ones(2, dtype=torch.int16)).as_numpy().tolist() == [1, 1]
    with pytest.raises(TritonModelException, match="not contiguous"):
        Tensor.from_dlpack("y", torch.ones(2, 3).T)


def test_bfloat16_travels_through_dlpack_only() -> None:
    torch = pytest.importorskip("torch")
    bits = np.array([0x3F80, 0x4000], dtype=np.uint16)
    tensor = received(bits, "BF16")
    assert tensor.triton_dtype() == 14
    with pytest.raises(TritonModelException, match="NumPy has no BF16"):
        tensor.as_numpy()
    values = torch.from_dlpack(tensor)
    assert (values.dtype, values.tolist()) == (torch.bfloat16, [1.0, 2.0])
    for source in (values, torch.utils.dlpack.to_dlpack(values)):
        (output,) = InferenceResponse([Tensor.from_dlpack("y", source)]).outcome().outputs
        assert (output.datatype, bytes(output.data)) == ("BF16", bits.tobytes())


FP32 = {"name": "a", "data_type": "TYPE_FP32", "dims": [2]}
WHERE = "auto-complete-config function for model 'm'"


def test_auto_complete_fills_in() -> None:
    config = ModelConfig({"name": "m", "max_batch_size": 1, "input": [{"name": "a"}]})
    config.add_input({**FP32, "optional": True})
    config.add_input(dict(FP32))
    config.add_output(FP32)
    config.set_max_batch_size(4)
    config.set_dynamic_batching()
    config.set_model_transaction_policy({"decoupled": True})
    config.set_model_transaction_policy({"decoupled": True})
    assert config.as_dict() == {
        "name": "m",
        "max_batch_size": 4,
        "input": [{**FP32, "optional": True}],
        "output": [FP32],
        "dynamic_batching": {},
        "model_transaction_policy": {"decoupled": True},
    }


@pytest.mark.parametrize(
    ("method", "argument", "message"),
    [
        (
            "set_max_batch_size",
            1,
            "configuration specified max_batch_size 2, but in auto-complete-config function for model 'm' specified "
            "max_batch_size 1",
        ),
        (
            "add_input",
            {**FP32, "x": 1},
            f"input 'a' in {WHERE} contains property other than 'name', 'data_type', 'dims' and 'optional'.",
        ),
        (
            "add_output",
            {**FP32, "optional": True},
            f"output 'a' in {WHERE} contains property other than 'name', 'data_type' and 'dims'.",
        ),
        ("add_input", {"dims": [1]}, f"input in {WHERE} is missing 'name' property."),
        ("add_input", {"name": "a", "dims": [1]}, f"input 'a' in {WHERE} is missing 'data_type' property."),
        ("add_output", {"name": "a", "data_type": "T"}, f"output 'a' in {WHERE} is missing 'dims' property."),
        (
            "add_input",
            {**FP32, "data_type": "TYPE_INT8"},
            "unable to load model 'm', configuration expects datatype TYPE_FP32 for input 'a', "
            "model provides TYPE_INT8",
        ),
        (
            "add_input",
            {**FP32, "dims": [3]},
            "model 'm', tensor 'a': the model expects dims [3] but the model configuration specifies dims [2]",
        ),
        (
            "add_input",
            {**FP32, "optional": True},
            "model 'm', tensor 'a': the model expects optional True but the model configuration specifies "
            "optional False",
        ),
        (
            "set_dynamic_batching",
            None,
            "Configuration specified scheduling_choice as 'sequence_batching', but auto-complete-config function for "
            "model 'm' tries to set scheduling_choice as 'dynamic_batching'",
        ),
        (
            "set_model_transaction_policy",
            {"x": 1},
            "model transaction property in auto-complete-config function for model 'm' contains property other than "
            "'decoupled'.",
        ),
        (
            "set_model_transaction_policy",
            {"decoupled": True},
            "trying to change decoupled property in auto-complete-config for model 'm', which is already set to "
            "'False'.",
        ),
    ],
)
def test_auto_complete_conflicts(method: str, argument: object, message: str) -> None:
    config = ModelConfig(
        {
            "name": "m",
            "max_batch_size": 2,
            "input": [{**FP32, "optional": False}],
            "sequence_batching": {},
            "model_transaction_policy": {"decoupled": False},
        }
    )
    with pytest.raises(ValueError) as raised:
        getattr(config, method)(*([] if argument is None else [argument]))
    assert str(raised.value) == message

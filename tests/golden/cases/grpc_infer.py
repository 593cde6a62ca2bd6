"""Inference over gRPC: raw and typed contents, what is wrong with them, parameters, classification."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.golden.build import fp32, int32, one, proto_infer, proto_output, proto_tensor, rpc, strings
from tests.golden.cases.http_binary import TYPES
from tests.golden.scenario import Grpc, Scenario

TYPED: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("bool", [True, False]),
    "UINT8": ("uint", [0, 255]),
    "UINT16": ("uint", [0, 65535]),
    "UINT32": ("uint", [0, 2**32 - 1]),
    "UINT64": ("uint64", [0, 2**64 - 1]),
    "INT8": ("int", [-128, 127]),
    "INT16": ("int", [-32768, 32767]),
    "INT32": ("int", [-(2**31), 2**31 - 1]),
    "INT64": ("int64", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32", [0.1, -1.5]),
    "FP64": ("fp64", [0.1, -1.5]),
    "BYTES": ("bytes", [b"abc\0\xff", b""]),
}
ODD: dict[str, tuple[str, dict[str, list[Any]], list[int]]] = {
    "uint8_truncated": ("UINT8", {"uint": [256, 511]}, [2]),
    "int8_truncated": ("INT8", {"int": [128, -129]}, [2]),
    "wrong_field": ("FP32", {"int": [1, 2]}, [2]),
    "wrong_field_int": ("INT64", {"int": [1, 2]}, [2]),
    "wrong_field_uint": ("INT32", {"uint": [1, 2]}, [2]),
    "wrong_field_bytes": ("BYTES", {"fp32": [1]}, [1]),
    "two_fields": ("FP32", {"fp32": [1, 2], "int": [1, 2]}, [2]),
    "two_fields_right_one_first": ("INT32", {"int": [1, 2], "fp32": [1, 2]}, [2]),
    "two_other_fields": ("FP32", {"int": [1, 2], "bool": [True]}, [2]),
    "fp16_typed": ("FP16", {"fp32": [1, 2]}, [2]),
    "bf16_typed": ("BF16", {"fp32": [1, 2]}, [2]),
    "too_few": ("FP32", {"fp32": [1]}, [2]),
    "too_many": ("FP32", {"fp32": [1, 2, 3]}, [2]),
    "bytes_too_few": ("BYTES", {"bytes": [b"a"]}, [2]),
    "bytes_too_many": ("BYTES", {"bytes": [b"a", b"b", b"c"]}, [2]),
    "none": ("FP32", {}, [2]),
    "none_wanted": ("FP32", {}, [0]),
    "unknown_datatype": ("FP128", {"fp32": [1]}, [1]),
    "lower_case_datatype": ("fp32", {"fp32": [1]}, [1]),
}
A, B = fp32(1, 2, 3, 4), fp32(0.5, 0.25, 0, -1)


def in_a(*shape: int, datatype: str = "FP32", **parameters: Any) -> Any:
    """Input A of add_sub."""
    return proto_tensor("A", datatype, shape or (1, 4), None, **parameters)


def in_b(*shape: int, datatype: str = "FP32") -> Any:
    """Input B of add_sub."""
    return proto_tensor("B", datatype, shape or (1, 4))


def add_sub(*outputs: Any, raw: Sequence[bytes] = (A, B), inputs: Sequence[Any] | None = None, **fields: Any) -> Grpc:
    """A request to add_sub, good unless told otherwise."""
    return rpc(
        "ModelInfer", proto_infer("add_sub", [in_a(), in_b()] if inputs is None else inputs, raw, outputs, **fields)
    )


def typed(datatype: str, contents: Mapping[str, Sequence[Any]], shape: Sequence[int], name: str = "") -> Grpc:
    """A request to types with typed contents."""
    return rpc("ModelInfer", proto_infer("types", [proto_tensor(name or datatype, datatype, shape, contents)]))


def raw(datatype: str, data: Sequence[bytes], shape: Sequence[int], name: str = "") -> Grpc:
    """A request to types with raw contents."""
    return rpc("ModelInfer", proto_infer("types", [proto_tensor(name or datatype, datatype, shape)], data))


def told(parameters: Mapping[str, Any]) -> Grpc:
    """A request to parameters."""
    inputs = [proto_tensor("SET", "BYTES", [1])]
    return rpc("ModelInfer", proto_infer("parameters", inputs, [strings(b"sorted")], parameters=parameters))


def contents(name: str, values: Sequence[float], shape: Sequence[int] = (1, 4)) -> Any:
    """An FP32 input with typed contents."""
    return proto_tensor(name, "FP32", shape, {"fp32": values})


FOUR = [1.0, 2.0, 3.0, 4.0]
INPUTS: dict[str, Grpc] = {
    "none": add_sub(inputs=[], raw=[]),
    "one_of_two": add_sub(inputs=[in_a()], raw=[A]),
    "three_for_two": add_sub(inputs=[in_a(), in_b(), proto_tensor("C", "FP32", [1, 4])], raw=[A, B, A]),
    "only_unknown": add_sub(inputs=[proto_tensor("C", "FP32", [1, 4])], raw=[A]),
    "unknown_for_missing": add_sub(inputs=[in_a(), proto_tensor("C", "FP32", [1, 4])], raw=[A, B]),
    "duplicate": add_sub(inputs=[in_a(), in_a()]),
    "datatype": add_sub(inputs=[in_a(datatype="INT32"), in_b()]),
    "datatype_empty": add_sub(inputs=[in_a(datatype=""), in_b()]),
    "shape_without_batch": add_sub(inputs=[in_a(4), in_b(4)]),
    "shape_dimension": add_sub(inputs=[in_a(1, 3), in_b(1, 3)], raw=[A[:12], B[:12]]),
    "shape_negative": add_sub(inputs=[in_a(1, -1), in_b()]),
    "shape_negative_batch": add_sub(inputs=[in_a(-1, 4), in_b(-1, 4)]),
    "shape_empty": add_sub(inputs=[proto_tensor("A", "FP32", []), proto_tensor("B", "FP32", [])], raw=[A[:4], B[:4]]),
    "shape_zero_batch": add_sub(inputs=[in_a(0, 4), in_b(0, 4)], raw=[b"", b""]),
    "batches_differ": add_sub(inputs=[in_a(2, 4), in_b()], raw=[A + A, B]),
    "batch_too_large": add_sub(inputs=[in_a(9, 4), in_b(9, 4)], raw=[A * 9, B * 9]),
    "size_mismatch": add_sub(raw=[A[:12], B]),
    "size_mismatch_of_typed": add_sub(inputs=[contents("A", FOUR[:3]), contents("B", FOUR)], raw=[]),
    "raw_for_one": add_sub(raw=[A]),
    "raw_for_none": add_sub(raw=[]),
    "raw_too_many": add_sub(raw=[A, B, A]),
    "raw_and_typed": add_sub(inputs=[contents("A", FOUR), in_b()]),
    "raw_and_typed_for_one_each": add_sub(inputs=[contents("A", FOUR), in_b()], raw=[B]),
    "unknown_output": add_sub(proto_output("NOPE")),
    "empty_output": add_sub(proto_output("")),
    "output_twice": add_sub(proto_output("SUM"), proto_output("SUM")),
    "output_before_inputs": add_sub(proto_output("NOPE"), inputs=[in_a()], raw=[A]),
    "optional_none": rpc("ModelInfer", proto_infer("optional")),
    "optional_only": rpc("ModelInfer", proto_infer("optional", [proto_tensor("B", "INT32", [1, 2])], [int32(1, 2)])),
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "each_type": {"s": "text", "i": 7, "n": -7, "b": True, "d": 1.5},
    "uint64": {"u": ("uint64", 1)},
    "unset": {"u": None},
    "empty_name": {"": 1},
    "unicode": {"é": "日本"},
    "largest_int": {"i": 2**63 - 1},
    "infinity": {"d": float("inf")},
    "sequence_id": {"sequence_id": 5},
    "sequence_id_negative": {"sequence_id": -5},
    "sequence_id_string": {"sequence_id": "abc"},
    "sequence_id_uint64": {"sequence_id": ("uint64", 5)},
    "sequence_id_bool": {"sequence_id": True},
    "sequence_id_128": {"sequence_id": "x" * 128},
    "sequence_id_129": {"sequence_id": "x" * 129},
    "sequence_flags": {"sequence_start": True, "sequence_end": True},
    "sequence_start_number": {"sequence_start": 1},
    "sequence_end_string": {"sequence_end": "yes"},
    "priority": {"priority": 1},
    "priority_uint64": {"priority": ("uint64", 2)},
    "priority_negative": {"priority": -1},
    "priority_string": {"priority": "1"},
    "timeout": {"timeout": 1000000},
    "timeout_uint64": {"timeout": ("uint64", 1)},
    "timeout_string": {"timeout": "1"},
    "timeout_negative": {"timeout": -1},
    "binary_data_output": {"binary_data_output": True},
    "headers": {"headers": "x"},
    "reserved": {"triton_x": 1},
    "reserved_final": {"triton_enable_empty_final_response": True},
    "reserved_final_number": {"triton_enable_empty_final_response": 1},
}

SCENARIOS: list[Scenario] = [
    one("raw", add_sub()),
    one("version", add_sub(model_version="1")),
    one("id", add_sub(id="request 7")),
    one("one_output", add_sub(proto_output("DIFFERENCE"))),
    one("outputs_in_another_order", add_sub(proto_output("DIFFERENCE"), proto_output("SUM"))),
    one("inputs_in_another_order", add_sub(inputs=[in_b(), in_a()], raw=[B, A])),
    one("typed", add_sub(inputs=[contents("A", FOUR), contents("B", FOUR)], raw=[])),
    one("output_parameters", add_sub(proto_output("SUM", binary_data=False, other="x"))),
    one("input_parameters", add_sub(inputs=[in_a(other="x", binary_data_size=3), in_b()])),
    one("empty_tensor", rpc("ModelInfer", proto_infer("matrix", [proto_tensor("IN", "INT32", [0, 3])], [b""]))),
    one(
        "variable",
        rpc("ModelInfer", proto_infer("matrix", [proto_tensor("IN", "INT32", [2, 3])], [int32(1, 2, 3, 4, 5, 6)])),
    ),
    one(
        "batch",
        rpc("ModelInfer", proto_infer("batched_bytes", [proto_tensor("IN", "BYTES", [2, 1])], [strings(b"a", b"bc")])),
    ),
    one(
        "reshape",
        rpc(
            "ModelInfer",
            proto_infer(
                "reshape",
                [proto_tensor("SQUARE", "FP32", [1, 4]), proto_tensor("SCALAR", "FP32", [1, 1])],
                [A, fp32(10)],
            ),
        ),
    ),
    one(
        "optional_present",
        rpc(
            "ModelInfer",
            proto_infer(
                "optional",
                [proto_tensor("A", "INT32", [1, 2]), proto_tensor("B", "INT32", [1, 2])],
                [int32(1, 2), int32(3, 4)],
            ),
        ),
    ),
    one(
        "types_together",
        rpc(
            "ModelInfer", proto_infer("types", [proto_tensor(name, name, [2]) for name in TYPES], list(TYPES.values()))
        ),
    ),
    *[one(f"raw {name}", raw(name, [data], [2])) for name, data in TYPES.items()],
    *[one(f"typed {name}", typed(name, {field: values}, [2])) for name, (field, values) in TYPED.items()],
    *[
        one(f"contents {name}", typed(datatype, fields, shape, datatype if datatype in TYPES else "FP32"))
        for name, (datatype, fields, shape) in ODD.items()
    ],
    one("raw bf16", raw("BF16", [b"\x80\x3f"], [1], "FP16")),
    one("raw bytes_length_cut", raw("BYTES", [b"\3\0"], [1])),
    one("raw bytes_data_cut", raw("BYTES", [b"\3\0\0\0ab"], [1])),
    one("raw bytes_too_few", raw("BYTES", [strings(b"a", b"b")], [3])),
    one("raw bytes_too_many", raw("BYTES", [strings(b"a", b"b")], [1])),
    one("raw bytes_none", raw("BYTES", [b""], [1])),
    one("raw bytes_empty_tensor", raw("BYTES", [b""], [0])),
    *[one(f"inputs {name}", step) for name, step in INPUTS.items()],
    one("inputs none with id", add_sub(inputs=[], raw=[], id="7")),
    one("inputs datatype with id", add_sub(inputs=[in_a(datatype="INT32"), in_b()], id="7")),
    *[one(f"request {name}", told(parameters)) for name, parameters in PARAMETERS.items()],
    one("classes", add_sub(proto_output("SUM", classification=2))),
    one("classes one_of_two", add_sub(proto_output("SUM", classification=9), proto_output("DIFFERENCE"))),
    one("classes zero", add_sub(proto_output("SUM", classification=0))),
    one("classes negative", add_sub(proto_output("SUM", classification=-1))),
    one("classes string", add_sub(proto_output("SUM", classification="1"))),
    one(
        "classes of FP16",
        rpc(
            "ModelInfer",
            proto_infer(
                "types",
                [proto_tensor("FP16", "FP16", [2])],
                [TYPES["FP16"]],
                [proto_output("OUT_FP16", classification=1)],
            ),
        ),
    ),
]

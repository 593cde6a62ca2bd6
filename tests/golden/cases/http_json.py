"""Inference with JSON tensors."""

import json

from tests.golden.build import Json, binary, infer, one, output, tensor
from tests.golden.scenario import Scenario


def add_sub(*outputs: object, a: object = (1, 2, 3, 4), **members: object) -> dict[str, object]:
    """A good request to add_sub."""
    inputs = [tensor("A", "FP32", [1, 4], a), tensor("B", "FP32", [1, 4], [0.5, 0.25, 0, -1])]
    return {"inputs": inputs, **members} | ({"outputs": list(outputs)} if outputs else {})


def of_type(datatype: str, values: str, count: int = 2, name: str = "") -> str:
    """A request to types whose data are written as they stand."""
    entry = f'{{"name":"{name or datatype}","shape":[{count}],"datatype":"{datatype}","data":{values}}}'
    return f'{{"inputs":[{entry}]}}'


def int32(values: object, shape: object = (1, 4)) -> dict[str, object]:
    """A request to matrix."""
    return {"inputs": [{"name": "IN", "shape": shape, "datatype": "INT32", "data": values}]}


TYPES = {
    "BOOL": "[true,false]",
    "UINT8": "[0,255]",
    "UINT16": "[0,65535]",
    "UINT32": "[0,4294967295]",
    "UINT64": "[0,18446744073709551615]",
    "INT8": "[-128,127]",
    "INT16": "[-32768,32767]",
    "INT32": "[-2147483648,2147483647]",
    "INT64": "[-9223372036854775808,9223372036854775807]",
    "FP32": "[0.1,-1.5]",
    "FP64": "[0.1,-1.5]",
    "BYTES": '["abc",""]',
}
VALUES: dict[str, tuple[str, str, int]] = {
    "fp32_integers": ("FP32", "[1,-2]", 2),
    "fp32_large": ("FP32", "[1e30,3.4028235e38]", 2),
    "fp32_small": ("FP32", "[1e-30,1e-45]", 2),
    "fp32_overflow": ("FP32", "[1e39,-1e39]", 2),
    "fp32_zeros": ("FP32", "[0.0,-0.0]", 2),
    "fp32_specials": ("FP32", "[NaN,Infinity,-Infinity]", 3),
    "fp32_short_infinity": ("FP32", "[Inf,-Inf]", 2),
    "fp32_thirds": ("FP32", "[0.3333333333333333,16777217]", 2),
    "fp64_specials": ("FP64", "[NaN,Infinity,-Infinity]", 3),
    "fp64_extremes": ("FP64", "[1.7976931348623157e308,5e-324]", 2),
    "fp64_overflow": ("FP64", "[1e400]", 1),
    "fp64_long": ("FP64", "[0.1234567890123456789012345678901234567890]", 1),
    "fp64_large_integer": ("FP64", "[18446744073709551616]", 1),
    "fp64_powers": ("FP64", "[1e15,1e16,1e17,1e21,1e22,1e-5,1e-6,1e-7,123456789012345680]", 9),
    "int8_truncated": ("INT8", "[128,-129]", 2),
    "int16_truncated": ("INT16", "[32768,-32769]", 2),
    "int32_truncated": ("INT32", "[2147483648,-2147483649]", 2),
    "uint8_truncated": ("UINT8", "[256,511]", 2),
    "uint16_truncated": ("UINT16", "[65536,70000]", 2),
    "uint32_truncated": ("UINT32", "[4294967296,4294967297]", 2),
    "int64_too_large": ("INT64", "[9223372036854775808]", 1),
    "uint64_too_large": ("UINT64", "[18446744073709551616]", 1),
    "int32_float": ("INT32", "[1.0]", 1),
    "int32_exponent": ("INT32", "[1e2]", 1),
    "int32_string": ("INT32", '["1"]', 1),
    "int32_null": ("INT32", "[null]", 1),
    "int32_bool": ("INT32", "[true]", 1),
    "uint32_negative": ("UINT32", "[-1]", 1),
    "uint8_float": ("UINT8", "[1.5]", 1),
    "bool_number": ("BOOL", "[1]", 1),
    "bool_string": ("BOOL", '["true"]', 1),
    "fp32_string": ("FP32", '["1.0"]', 1),
    "fp32_bool": ("FP32", "[false]", 1),
    "fp32_object": ("FP32", "[{}]", 1),
    "bytes_number": ("BYTES", "[1]", 1),
    "bytes_null": ("BYTES", "[null]", 1),
    "bytes_escapes": ("BYTES", r'["\u00e9\n\"\\\/\u0000\t","\ud83d\ude00"]', 2),
    "bytes_utf8": ("BYTES", '["é","日本"]', 2),
    "bytes_control": ("BYTES", r'["\u0001\u001f\u007f"]', 1),
    "bytes_long": ("BYTES", json.dumps(["x" * 300]), 1),
    "fp16": ("FP16", "[1.0]", 1),
    "bf16": ("BF16", "[1.0]", 1),
    "unknown_type": ("FP128", "[1.0]", 1),
    "lower_case_type": ("fp32", "[1.0]", 1),
    "empty_type": ("", "[1.0]", 1),
}
SYNTAX: dict[str, Json] = {
    "empty": b"",
    "space": b"   ",
    "not_json": b"hello",
    "open_object": b'{"inputs"',
    "open_array": b'{"inputs":[',
    "no_colon": b'{"inputs" 1}',
    "no_value": b'{"inputs":}',
    "no_name": b"{1:2}",
    "single_quotes": b"{'inputs':[]}",
    "no_comma_in_object": b'{"id":"a" "inputs":[]}',
    "no_comma_in_array": b'{"inputs":[1 2]}',
    "trailing_comma_in_object": b'{"inputs":[],}',
    "trailing_comma_in_array": b'{"inputs":[1,]}',
    "more_after_the_root": b"{} {}",
    "open_string": b'{"id":"abc',
    "bad_escape": rb'{"id":"\x"}',
    "bad_unicode_escape": rb'{"id":"\u12g4"}',
    "lone_surrogate": rb'{"id":"\ud800"}',
    "control_character": b'{"id":"a\nb"}',
    "bad_number": b'{"id":-}',
    "bad_fraction": b'{"id":1.}',
    "bad_exponent": b'{"id":1e}',
    "leading_zero": b'{"id":01}',
    "huge_number": b'{"id":1e999}',
    "bad_literal": b'{"id":tru}',
    "comment": b'/* no */ {"inputs":[]}',
    "byte_order_mark": b'\xef\xbb\xbf{"inputs":[]}',
    "null_byte": b'{"inputs":[]}\0',
    "root_array": b"[]",
    "root_number": b"1",
    "root_string": b'"x"',
    "root_null": b"null",
    "empty_object": b"{}",
}


def several_types() -> str:
    """A request to types with every input that JSON can carry."""
    entries = (f'{{"name":"{name}","shape":[2],"datatype":"{name}","data":{values}}}' for name, values in TYPES.items())
    return f'{{"inputs":[{",".join(entries)}]}}'


A = '{"name":"A","shape":[4],"datatype":"INT32","data":[1,2,3,4]}'
B = '{"name":"B","shape":[4],"datatype":"INT32","data":[4,3,2,1]}'
MEMBERS = {
    "inputs_object": '{"inputs":{}}',
    "inputs_string": '{"inputs":"x"}',
    "inputs_null": '{"inputs":null}',
    "inputs_empty": '{"inputs":[]}',
    "input_number": '{"inputs":[1]}',
    "input_empty": '{"inputs":[{}]}',
    "input_without_name": '{"inputs":[{"shape":[4],"datatype":"INT32","data":[1,2,3,4]}]}',
    "input_without_shape": '{"inputs":[{"name":"A","datatype":"INT32","data":[1,2,3,4]}]}',
    "input_without_datatype": '{"inputs":[{"name":"A","shape":[4],"data":[1,2,3,4]}]}',
    "input_without_data": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32"}]}',
    "name_number": '{"inputs":[{"name":1,"shape":[4],"datatype":"INT32","data":[1,2,3,4]}]}',
    "name_empty": '{"inputs":[{"name":"","shape":[4],"datatype":"INT32","data":[1,2,3,4]}]}',
    "datatype_number": '{"inputs":[{"name":"A","shape":[4],"datatype":7,"data":[1,2,3,4]}]}',
    "shape_number": '{"inputs":[{"name":"A","shape":4,"datatype":"INT32","data":[1,2,3,4]}]}',
    "shape_string": '{"inputs":[{"name":"A","shape":["4"],"datatype":"INT32","data":[1,2,3,4]}]}',
    "shape_negative": '{"inputs":[{"name":"A","shape":[-1],"datatype":"INT32","data":[1,2,3,4]}]}',
    "shape_float": '{"inputs":[{"name":"A","shape":[4.0],"datatype":"INT32","data":[1,2,3,4]}]}',
    "shape_null": '{"inputs":[{"name":"A","shape":null,"datatype":"INT32","data":[1,2,3,4]}]}',
    "data_number": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":1}]}',
    "data_null": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":null}]}',
    "data_object": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":{}}]}',
    "data_too_many": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":[1,2,3,4,5]}]}',
    "data_too_few": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":[1,2,3]}]}',
    "data_empty": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":[]}]}',
    "two_sources": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":[1,2,3,4],'
    '"parameters":{"binary_data_size":16}}]}',
    "three_sources": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":[1,2,3,4],'
    '"parameters":{"binary_data_size":16,"shared_memory_region":"r"}}]}',
    "binary_without_header": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32",'
    '"parameters":{"binary_data_size":16}}]}',
    "binary_size_string": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32",'
    '"parameters":{"binary_data_size":"16"}}]}',
    "input_parameters_array": '{"inputs":[{"name":"A","shape":[4],"datatype":"INT32","data":[1,2,3,4],'
    '"parameters":[]}]}',
    "id_number": f'{{"id":1,"inputs":[{A},{B}]}}',
    "id_null": f'{{"id":null,"inputs":[{A},{B}]}}',
    "outputs_object": f'{{"inputs":[{A},{B}],"outputs":{{}}}}',
    "outputs_null": f'{{"inputs":[{A},{B}],"outputs":null}}',
    "outputs_string": f'{{"inputs":[{A},{B}],"outputs":["SUM"]}}',
    "output_without_name": f'{{"inputs":[{A},{B}],"outputs":[{{}}]}}',
    "output_name_number": f'{{"inputs":[{A},{B}],"outputs":[{{"name":3}}]}}',
    "output_binary_string": f'{{"inputs":[{A},{B}],"outputs":[{{"name":"SUM","parameters":{{"binary_data":"yes"}}}}]}}',
    "output_parameters_array": f'{{"inputs":[{A},{B}],"outputs":[{{"name":"SUM","parameters":[]}}]}}',
    "custom_tensor_parameters": f'{{"inputs":[{A[:-1]},"parameters":{{"x":[1]}}}},{B}],'
    '"outputs":[{"name":"SUM","parameters":{"y":null}}]}',
    "unknown_members": f'{{"model_name":"other","inputs":[{A},{B}],"extra":[1,{{}}]}}',
    "duplicate_members": f'{{"id":"first","id":"second","inputs":[{A},{B}]}}',
    "members_in_another_order": f'{{"outputs":[],"parameters":{{}},"inputs":[{A},{B}],"id":"last"}}',
    "white_space": f'\r\n\t {{ "inputs" :\n[ {A} , {B} ] }} \n',
    "duplicate_input": f'{{"inputs":[{A},{A}]}}',
    "duplicate_output": f'{{"inputs":[{A},{B}],"outputs":[{{"name":"SUM"}},{{"name":"SUM"}}]}}',
}

SCENARIOS: list[Scenario] = [
    one("all_outputs", infer("add_sub", add_sub())),
    one("with_version", infer("add_sub", add_sub(), version="1")),
    one("id", infer("add_sub", add_sub(id="request 7"))),
    one("empty_id", infer("add_sub", add_sub(id=""))),
    one("id_with_escapes", infer("add_sub", '{"id":"\\"\\u00e9/\\n\\\\",' + json.dumps(add_sub())[1:])),
    one("one_output", infer("add_sub", add_sub(output("DIFFERENCE")))),
    one("outputs_in_another_order", infer("add_sub", add_sub(output("DIFFERENCE"), output("SUM")))),
    one("empty_outputs", infer("add_sub", add_sub(outputs=[]))),
    one("nested_data", infer("add_sub", add_sub(a=[[1, 2], [[3], 4]]))),
    one("nested_and_empty", infer("matrix", int32([[], [1, 2], [[]], [[3], 4]]))),
    one("scalar_data", infer("matrix", int32(5, (1, 1)))),
    one("inputs_in_another_order", infer("add_sub", {"inputs": add_sub()["inputs"][::-1]})),  # type: ignore[index]  # a list
    one("batch", infer("batched_bytes", {"inputs": [tensor("IN", "BYTES", [2, 2], ["a", "b", "c", "d"])]})),
    one("several_types", infer("types", several_types())),
    one("variable", infer("matrix", int32([1, 2, 3, 4, 5, 6], (2, 3)))),
    one("empty_tensor", infer("matrix", int32([], (0, 3)))),
    one(
        "reshape",
        infer(
            "reshape",
            {
                "inputs": [
                    tensor("SQUARE", "FP32", [2, 4], [1, 2, 3, 4, 5, 6, 7, 8]),
                    tensor("SCALAR", "FP32", [2, 1], [10, 100]),
                ]
            },
        ),
    ),
    one("optional_absent", infer("optional", {"inputs": [tensor("A", "INT32", [1, 2], [1, 2])]})),
    one(
        "optional_present",
        infer("optional", {"inputs": [tensor("A", "INT32", [1, 2], [1, 2]), tensor("B", "INT32", [1, 2], [3, 4])]}),
    ),
    one("no_input_of_optional_ones", infer("types", {"inputs": []})),
    one("content_type_is_ignored", infer("add_sub", add_sub(), "Content-Type: text/html")),
    *[one(f"type {name}", infer("types", of_type(name, values))) for name, values in TYPES.items()],
    *[
        one(
            f"value {name}", infer("types", of_type(datatype, values, count, datatype if datatype in TYPES else "FP32"))
        )
        for name, (datatype, values, count) in VALUES.items()
    ],
    one(
        "value bytes_not_utf8",
        infer("types", b'{"inputs":[{"name":"BYTES","shape":[1],"datatype":"BYTES","data":["\xff\xfe"]}]}'),
    ),
    *[one(f"syntax {name}", infer("add_sub", document)) for name, document in SYNTAX.items()],
    *[one(f"member {name}", infer("add_sub_int32", document)) for name, document in MEMBERS.items()],
    one(
        "fp16_output_as_json", binary("types", {"inputs": [tensor("FP16", "FP16", [1], binary_data_size=2)]}, b"\0\x3c")
    ),
]

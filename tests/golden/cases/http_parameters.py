"""Parameters of requests, classification."""

from tests.golden.build import Json, binary, infer, one, output, tensor
from tests.golden.scenario import Http, Scenario


def told(parameters: Json | None, **members: object) -> Http:
    """A request to parameters."""
    inputs = [tensor("SET", "BYTES", [1], [""])]
    return infer(
        "parameters", members | {"inputs": inputs} | ({} if parameters is None else {"parameters": parameters})
    )


def classes(
    model: str, shape: list[int], values: list[object], datatype: str, *outputs: object, **members: object
) -> Http:
    """A request to one of the adding models with these values and zeros."""
    inputs = [tensor("A", datatype, shape, values), tensor("B", datatype, shape, [0] * len(values))]
    return infer(model, {**members, "inputs": inputs, "outputs": list(outputs)})


PARAMETERS: dict[str, Json] = {
    "none": {},
    "each_type": {"s": "text", "i": 7, "n": -7, "b": True, "d": 1.5},
    "order": {"z": 1, "a": 2, "m": 3},
    "empty_name": {"": 1},
    "empty_string": {"s": ""},
    "unicode": {"é": "日本"},
    "largest_int": {"i": 2**63 - 1},
    "beyond_int": {"i": 2**63},
    "smallest_int": {"i": -(2**63)},
    "beyond_unsigned": {"i": 2**64},
    "large_float": {"d": 1e308},
    "nan": '{"parameters":{"d":NaN},"inputs":[]}',
    "null": {"n": None},
    "array": {"a": [1]},
    "object": {"o": {}},
    "array_after_good": {"a": 1, "b": []},
    "not_an_object": [1],
    "string_for_object": "text",
    "number_for_object": [],
    "sequence_id": {"sequence_id": 5},
    "sequence_id_zero": {"sequence_id": 0},
    "sequence_id_string": {"sequence_id": "abc"},
    "sequence_id_empty": {"sequence_id": ""},
    "sequence_id_largest": {"sequence_id": 2**64 - 1},
    "sequence_id_negative": {"sequence_id": -1},
    "sequence_id_float": {"sequence_id": 1.5},
    "sequence_id_bool": {"sequence_id": True},
    "sequence_id_128": {"sequence_id": "x" * 128},
    "sequence_id_129": {"sequence_id": "x" * 129},
    "sequence_flags": {"sequence_id": 1, "sequence_start": True, "sequence_end": True},
    "sequence_start_number": {"sequence_start": 1},
    "sequence_end_string": {"sequence_end": "true"},
    "priority": {"priority": 1},
    "priority_negative": {"priority": -1},
    "priority_string": {"priority": "1"},
    "priority_float": {"priority": 1.0},
    "timeout": {"timeout": 1000000},
    "timeout_negative": {"timeout": -1},
    "timeout_string": {"timeout": "1"},
    "headers": {"headers": "x"},
    "headers_object": {"headers": {}},
    "binary_data_output_number": {"binary_data_output": 1},
    "reserved": {"triton_x": 1},
    "reserved_final": {"triton_enable_empty_final_response": True},
    "reserved_prefix": {"triton_": 1},
    "reserved_upper_case": {"TRITON_x": 1},
    "reserved_after_good": {"a": 1, "triton_x": 1},
}
LABELLED, BARE = "add_sub", "add_sub_int32"

SCENARIOS: list[Scenario] = [
    one("absent", told(None)),
    *[
        one(f"request {name}", told(value))
        for name, value in PARAMETERS.items()
        if name not in {"nan", "string_for_object"}
    ],
    one("request nan", infer("parameters", PARAMETERS["nan"])),
    one("request string_for_object", infer("parameters", '{"parameters":"x","inputs":[]}')),
    one("request null_for_object", infer("parameters", '{"parameters":null,"inputs":[]}')),
    one(
        "request duplicate",
        infer(
            "parameters",
            '{"parameters":{"a":1,"a":2},"inputs":[{"name":"SET","shape":[1],"datatype":"BYTES","data":[""]}]}',
        ),
    ),
    one("id_and_outputs", told({"a": 1}, id="one", outputs=[output("SEEN")])),
    one("binary", told({"binary_data_output": True})),
    # classification
    one("classes top_1", classes(LABELLED, [1, 4], [1, 4, 3, 2], "FP32", output("SUM", classification=1))),
    one("classes top_3", classes(LABELLED, [1, 4], [1, 4, 3, 2], "FP32", output("SUM", classification=3))),
    one("classes all", classes(LABELLED, [1, 4], [1, 4, 3, 2], "FP32", output("SUM", classification=4))),
    one(
        "classes more_than_there_are", classes(LABELLED, [1, 4], [1, 4, 3, 2], "FP32", output("SUM", classification=9))
    ),
    one("classes ties", classes(LABELLED, [1, 4], [2, 2, 2, 2], "FP32", output("SUM", classification=4))),
    one("classes batch", classes(LABELLED, [2, 4], [1, 4, 3, 2, 9, 8, 7, 6], "FP32", output("SUM", classification=2))),
    one(
        "classes without_labels",
        classes(LABELLED, [1, 4], [1, 4, 3, 2], "FP32", output("DIFFERENCE", classification=2)),
    ),
    one("classes integers", classes(BARE, [4], [-1, 40, 3, 2], "INT32", output("SUM", classification=2))),
    one(
        "classes large_float", classes(LABELLED, [1, 4], [1e30, 1e-9, 0.1, -5], "FP32", output("SUM", classification=4))
    ),
    one(
        "classes specials",
        infer(
            LABELLED,
            '{"inputs":[{"name":"A","shape":[1,4],"datatype":"FP32","data":[Infinity,1,-Infinity,2]},{"name":"B","shape":[1,4],"datatype":"FP32","data":[0,0,0,0]}],"outputs":[{"name":"SUM","parameters":{"classification":4}}]}',
        ),
    ),
    one("classes zero", classes(BARE, [4], [1, 2, 3, 4], "INT32", output("SUM", classification=0))),
    one("classes negative", classes(BARE, [4], [1, 2, 3, 4], "INT32", output("SUM", classification=-1))),
    one("classes string", classes(BARE, [4], [1, 2, 3, 4], "INT32", output("SUM", classification="1"))),
    one("classes binary", classes(BARE, [4], [1, 2, 3, 4], "INT32", output("SUM", classification=2, binary_data=True))),
    one(
        "classes one_of_two",
        classes(BARE, [4], [1, 2, 3, 4], "INT32", output("SUM", classification=2), output("DIFFERENCE")),
    ),
    one(
        "classes and_region",
        classes(
            BARE,
            [4],
            [1, 2, 3, 4],
            "INT32",
            output("SUM", classification=2, shared_memory_region="r", shared_memory_byte_size=16),
        ),
    ),
    *[
        one(
            f"classes of {name}",
            infer(
                "types",
                f'{{"inputs":[{{"name":"{name}","shape":[3],"datatype":"{name}","data":{data}}}],'
                f'"outputs":[{{"name":"OUT_{name}","parameters":{{"classification":2}}}}]}}',
            ),
        )
        for name, data in {
            "BOOL": "[true,false,true]",
            "UINT8": "[1,200,3]",
            "UINT16": "[1,60000,3]",
            "UINT32": "[1,4000000000,3]",
            "UINT64": "[1,18446744073709551615,3]",
            "INT8": "[-1,100,3]",
            "INT16": "[-1,30000,3]",
            "INT64": "[-1,9223372036854775807,3]",
            "FP64": "[0.5,1e10,-2]",
        }.items()
    ],
    one(
        "classes of FP16",
        binary(
            "types",
            {
                "inputs": [tensor("FP16", "FP16", [2], binary_data_size=4)],
                "outputs": [output("OUT_FP16", classification=1)],
            },
            b"\0\x3c\0\xbc",
        ),
    ),
]

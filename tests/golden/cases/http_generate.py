"""The generate extension, on models that answer once."""

from tests.golden.build import Json, get, http, infer_path, one, post
from tests.golden.scenario import Scenario

BODIES: dict[str, tuple[str, Json]] = {
    "scalar": ("identity_fp32", {"IN": 1.5}),
    "array": ("identity_fp32", {"IN": [1.5, 2, -3]}),
    "empty_array": ("identity_fp32", {"IN": []}),
    "nested_array": ("identity_fp32", {"IN": [[1, 2], [3]]}),
    "two_variable_dims": ("matrix", {"IN": [1, 2, 3]}),
    "two_inputs": ("add_sub", {"A": [1, 2, 3, 4], "B": [4, 3, 2, 1]}),
    "two_batches": ("add_sub", {"A": [1, 2, 3, 4] * 2, "B": [4, 3, 2, 1] * 2}),
    "indivisible": ("add_sub", {"A": [1, 2, 3], "B": [4, 3, 2, 1]}),
    "bytes": ("identity_bytes", {"IN": "text"}),
    "bytes_array": ("batched_bytes", {"IN": ["a", "b"]}),
    "id": ("identity_fp32", {"id": "seven", "IN": 1}),
    "id_number": ("identity_fp32", {"id": 7, "IN": 1}),
    "missing_input": ("add_sub", {"A": [1, 2, 3, 4]}),
    "nothing": ("identity_fp32", {}),
    "wrong_type": ("identity_fp32", {"IN": "text"}),
    "null_input": ("identity_fp32", {"IN": None}),
    "object_input": ("identity_fp32", {"IN": {"x": 1}}),
    "bool_for_number": ("identity_fp32", {"IN": True}),
    "not_json": ("identity_fp32", "hello"),
    "empty": ("identity_fp32", ""),
    "array_root": ("identity_fp32", [1]),
    "number_root": ("identity_fp32", "1"),
    "parameters": ("parameters", {"SET": "", "a": 1, "b": "x", "c": True, "d": 1.5}),
    "parameters_object": ("parameters", {"SET": "", "parameters": {"a": 1, "b": "x"}}),
    "parameters_object_has_input": ("parameters", {"parameters": {"SET": "", "a": 1}}),
    "parameters_twice": ("parameters", {"SET": "", "a": 1, "parameters": {"a": 2}}),
    "parameters_array": ("parameters", {"SET": "", "parameters": []}),
    "parameters_nested": ("parameters", {"SET": "", "parameters": {"parameters": {"a": 1}}}),
    "parameters_bad_inside": ("parameters", {"SET": "", "parameters": {"a": [1]}}),
    "array_parameter": ("parameters", {"SET": "", "d": [1]}),
    "object_parameter": ("parameters", {"SET": "", "d": {}}),
    "null_parameter": ("parameters", {"SET": "", "d": None}),
    "reserved_names": ("parameters", {"SET": "", "sequence_id": 3, "priority": 1, "timeout": 5, "triton_x": 1}),
    "model_error": ("errors", {"WHAT": "raise"}),
    "model_error_code": ("errors", {"WHAT": "UNAVAILABLE try later"}),
    "model_error_not_found": ("errors", {"WHAT": "NOT_FOUND gone"}),
    "fp16": ("types", {"FP16": 1}),
    "several_types": ("types", {"BOOL": True, "INT64": -1, "UINT64": 2**63, "BYTES": ["x", "y"], "FP64": [0.1]}),
    "duplicate_input": ("identity_fp32", '{"IN":1,"IN":2}'),
    "unknown_model": ("nope", {"IN": 1}),
    "unknown_model_and_not_json": ("nope", "hello"),
}

SCENARIOS: list[Scenario] = [
    *[
        one(f"{verb} {name}", post(infer_path(model, verb=verb), body))
        for verb in ("generate", "generate_stream")
        for name, (model, body) in BODIES.items()
    ],
    *[
        scenario
        for verb in ("generate", "generate_stream")
        for scenario in (
            one(f"{verb} version", post(infer_path("versions", "1", verb), {"IN": 1})),
            one(f"{verb} unknown_version", post(infer_path("versions", "2", verb), {"IN": 1})),
            one(f"{verb} get", get(infer_path("versions", verb=verb))),
            one(
                f"{verb} identity_encoding",
                http("POST", infer_path("identity_fp32", verb=verb), {"IN": 1}, "Content-Encoding: identity"),
            ),
            one(
                f"{verb} gzip_encoding",
                http("POST", infer_path("identity_fp32", verb=verb), {"IN": 1}, "Content-Encoding: gzip"),
            ),
            one(
                f"{verb} accept_gzip",
                http("POST", infer_path("identity_fp32", verb=verb), {"IN": 1}, "Accept-Encoding: gzip"),
            ),
            one(
                f"{verb} binary_header",
                http("POST", infer_path("identity_fp32", verb=verb), {"IN": 1}, "Inference-Header-Content-Length: 0"),
            ),
        )
    ],
]

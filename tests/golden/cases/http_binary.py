"""Binary tensors, mixed with JSON ones, and raw requests; compression."""

import gzip
import zlib

from tests.golden.build import Json, binary, body_of, fp32, infer, int32, one, output, post, strings, tensor
from tests.golden.scenario import Http, Scenario

TYPES = {
    "BOOL": b"\1\0",
    "UINT8": b"\0\xff",
    "UINT16": b"\0\0\xff\xff",
    "UINT32": b"\0\0\0\0\xff\xff\xff\xff",
    "UINT64": b"\0" * 8 + b"\xff" * 8,
    "INT8": b"\x80\x7f",
    "INT16": b"\0\x80\xff\x7f",
    "INT32": b"\0\0\0\x80\xff\xff\xff\x7f",
    "INT64": b"\0" * 7 + b"\x80" + b"\xff" * 7 + b"\x7f",
    "FP16": b"\0\x3c\0\xbc",
    "FP32": fp32(0.1, -1.5),
    "FP64": b"\x9a\x99\x99\x99\x99\x99\xb9\x3f" + b"\0" * 6 + b"\xf8\xbf",
    "BYTES": strings(b"abc\0\xff", b""),
}
A, B = fp32(1, 2, 3, 4), fp32(0.5, 0.25, 0, -1)


def both(*outputs: object, size_a: object = 16, size_b: object = 16, **members: object) -> dict[str, object]:
    """A request to add_sub with two binary inputs."""
    inputs = [
        tensor("A", "FP32", [1, 4], binary_data_size=size_a),
        tensor("B", "FP32", [1, 4], binary_data_size=size_b),
    ]
    return {**members, "inputs": inputs} | ({"outputs": list(outputs)} if outputs else {})


def as_json(*outputs: object, **members: object) -> dict[str, object]:
    """The same with JSON inputs."""
    inputs = [tensor("A", "FP32", [1, 4], [1, 2, 3, 4]), tensor("B", "FP32", [1, 4], [0, 0, 0, 0])]
    return {**members, "inputs": inputs} | ({"outputs": list(outputs)} if outputs else {})


def matrix(shape: list[int], size: object) -> dict[str, object]:
    """A request to matrix with a binary output."""
    inputs = [tensor("IN", "INT32", shape, binary_data_size=size)]
    return {"inputs": inputs, "outputs": [output("OUT_IN", binary_data=True)]}


def texts(shape: list[int], data: bytes) -> Http:
    """A request to types with BYTES."""
    return binary("types", {"inputs": [tensor("BYTES", "BYTES", shape, binary_data_size=len(data))]}, data)


def packed(encoding: str, content: Json, *headers: str, data: bytes | None = None) -> Http:
    """A request to add_sub whose body is `content` in this encoding, or `data` as they are."""
    body = body_of(content) if data is None else data
    if data is None and encoding == "gzip":
        body = gzip.compress(body, mtime=0)
    if data is None and encoding == "deflate":
        body = zlib.compress(body)
    return post("/v2/models/add_sub/infer", body, f"Content-Encoding: {encoding}", *headers)


def raw(model: str, data: bytes, *headers: str) -> Http:
    """A raw request: no JSON at all."""
    return post(f"/v2/models/{model}/infer", data, "Inference-Header-Content-Length: 0", *headers)


WANTED = {"binary_data_output": True}
_TEXT = body_of(as_json())
_MIXED = body_of(both())

SCENARIOS: list[Scenario] = [
    one("json_output", binary("add_sub", both(), A, B)),
    one("binary_data_output", binary("add_sub", both(parameters=WANTED), A, B)),
    one("binary_data_output_false", binary("add_sub", both(parameters={"binary_data_output": False}), A, B)),
    one("binary_data_output_and_listed", binary("add_sub", both(output("SUM"), parameters=WANTED), A, B)),
    one("binary_data_output_string", binary("add_sub", both(parameters={"binary_data_output": "yes"}), A, B)),
    one("mixed_outputs", binary("add_sub", both(output("SUM", binary_data=True), output("DIFFERENCE")), A, B)),
    one("mixed_outputs_reversed", binary("add_sub", both(output("DIFFERENCE", binary_data=True), output("SUM")), A, B)),
    one("both_binary", binary("add_sub", both(*[output(n, binary_data=True) for n in ("DIFFERENCE", "SUM")]), A, B)),
    one("binary_data_false", binary("add_sub", both(output("SUM", binary_data=False), parameters=WANTED), A, B)),
    one(
        "mixed_inputs",
        binary(
            "add_sub",
            {"inputs": [tensor("A", "FP32", [1, 4], [1, 2, 3, 4]), tensor("B", "FP32", [1, 4], binary_data_size=16)]},
            B,
        ),
    ),
    one("json_request_binary_output", infer("add_sub", as_json(output("SUM", binary_data=True)))),
    one("whole_body_is_json", binary("add_sub", as_json())),
    one("id_and_binary", binary("add_sub", both(output("SUM", binary_data=True), id="b"), A, B)),
    one("empty_binary_tensor", binary("matrix", matrix([0, 3], 0))),
    one(
        "empty_and_full",
        binary(
            "types",
            {
                "inputs": [
                    tensor("INT8", "INT8", [0], binary_data_size=0),
                    tensor("UINT8", "UINT8", [1], binary_data_size=1),
                ],
                "parameters": WANTED,
            },
            b"\7",
        ),
    ),
    *[
        one(
            f"type {name}",
            binary(
                "types", {"inputs": [tensor(name, name, [2], binary_data_size=len(data))], "parameters": WANTED}, data
            ),
        )
        for name, data in TYPES.items()
    ],
    one(
        "types_together",
        binary(
            "types",
            {
                "inputs": [tensor(name, name, [2], binary_data_size=len(data)) for name, data in TYPES.items()],
                "parameters": WANTED,
            },
            *TYPES.values(),
        ),
    ),
    one("bytes_not_utf8_as_json", texts([2], strings(b"abc\xff", b"\xc3\xa9"))),
    one("bytes_with_quotes_as_json", texts([1], strings(b'say "\\\n\0/\x7f"'))),
    one(
        "lower_case_header",
        post("/v2/models/add_sub/infer", _MIXED + A + B, f"inference-header-content-length: {len(_MIXED)}"),
    ),
    # what is wrong with sizes
    one("one_byte_missing", binary("add_sub", both(), A, B[:-1])),
    one("second_input_missing", binary("add_sub", both(), A)),
    one("bytes_left_over", binary("add_sub", both(), A, B, b"x")),
    one("size_too_small", binary("add_sub", both(size_a=12), A[:12], B)),
    one("size_too_large", binary("add_sub", both(size_a=20), A + b"1234", B)),
    one("size_negative", binary("add_sub", both(size_a=-1), A, B)),
    one("size_float", binary("add_sub", both(size_a=16.0), A, B)),
    one("size_huge", binary("add_sub", both(size_a=2**63), A, B)),
    one("size_zero", binary("add_sub", both(size_a=0), B)),
    one("shape_does_not_fit", binary("matrix", matrix([2, 2], 12), int32(1, 2, 3))),
    one(
        "lower_case_datatype",
        binary("matrix", {"inputs": [tensor("IN", "int32", [1, 1], binary_data_size=4)]}, int32(1)),
    ),
    # the header that divides the body
    one("header_too_large", binary("add_sub", both(), A, B, length="100000")),
    one("header_negative", binary("add_sub", both(), A, B, length="-1")),
    one("header_not_a_number", binary("add_sub", both(), A, B, length="abc")),
    one("header_empty", binary("add_sub", both(), A, B, length=" ")),
    one("header_with_more", binary("add_sub", both(), A, B, length=f"{len(_MIXED)}x")),
    one("header_float", binary("add_sub", both(), A, B, length=f"{len(_MIXED)}.5")),
    one("header_beyond_int", binary("add_sub", both(), A, B, length="99999999999")),
    one("header_cuts_json", binary("add_sub", both(), A, B, length=str(len(_MIXED) - 1))),
    one("header_before_unknown_model", binary("nope", both(), A, B, length="-1")),
    # BYTES
    one("bytes_length_cut", texts([1], b"\3\0")),
    one("bytes_data_cut", texts([1], b"\3\0\0\0ab")),
    one("bytes_too_few", texts([3], strings(b"a", b"b"))),
    one("bytes_too_many", texts([1], strings(b"a", b"b"))),
    one("bytes_none", texts([1], b"")),
    one("bytes_empty_tensor", texts([0], b"")),
    one("bytes_empty_tensor_with_data", texts([0], strings(b"a"))),
    one("bytes_huge_length", texts([1], b"\xff\xff\xff\xffab")),
    # raw requests
    one("raw", raw("identity_fp32", fp32(1, 2, 3))),
    one("raw_without_data", raw("identity_fp32", b"")),
    one("raw_empty_body", post("/v2/models/identity_fp32/infer")),
    one("raw_partial_element", raw("identity_fp32", b"12345")),
    one("raw_bytes", raw("identity_bytes", b"hello")),
    one("raw_bytes_empty", raw("identity_bytes", b"")),
    one("raw_two_variable_dims", raw("matrix", int32(1, 2))),
    one("raw_two_inputs", raw("add_sub", A)),
    one("raw_bytes_variable", raw("batched_bytes", b"hello")),
    one("raw_fixed_batching", raw("counted", int32(5))),
    one("raw_fixed_too_long", raw("counted", int32(5, 6))),
    one("raw_optional_inputs", raw("types", b"x")),
    # compression
    one("gzip", packed("gzip", _TEXT)),
    one("deflate", packed("deflate", _TEXT)),
    one("identity", packed("identity", _TEXT)),
    one("gzip_binary", packed("gzip", _MIXED + A + B, f"Inference-Header-Content-Length: {len(_MIXED)}")),
    one("deflate_called_gzip", packed("gzip", b"", data=zlib.compress(_TEXT))),
    one("gzip_called_deflate", packed("deflate", b"", data=gzip.compress(_TEXT, mtime=0))),
    one("raw_deflate", packed("deflate", b"", data=zlib.compress(_TEXT)[2:-4])),
    one("gzip_garbage", packed("gzip", b"", data=b"this is not gzip")),
    one("gzip_empty", packed("gzip", b"", data=b"")),
    one("gzip_cut", packed("gzip", b"", data=gzip.compress(_TEXT, mtime=0)[:-12])),
    one("gzip_of_nothing", packed("gzip", b"")),
    one("unknown_encoding", packed("br", _TEXT)),
    one("upper_case_encoding", packed("GZIP", _TEXT)),
    one("two_encodings", packed("gzip, deflate", _TEXT)),
    one("unknown_encoding_and_unknown_model", post("/v2/models/nope/infer", _TEXT, "Content-Encoding: br")),
    *[
        one(f"accept {accepted}", infer("add_sub", as_json(), f"Accept-Encoding: {accepted}"))
        for accepted in (
            "gzip",
            "deflate",
            "identity",
            "br",
            "*",
            "gzip, deflate",
            "deflate, gzip",
            "gzip;q=0.5, deflate;q=0.8",
            "identity;q=1.0, gzip;q=0.5",
            "gzip;q=0",
            "br, gzip",
            "GZIP",
            "gzip;q=x",
            "",
        )
    ],
    one("accept_and_binary", binary("add_sub", both(parameters=WANTED), A, B, headers=["Accept-Encoding: gzip"])),
    one("accept_and_error", infer("add_sub", {}, "Accept-Encoding: gzip")),
]

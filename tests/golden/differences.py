"""The one table of where Tidepool may answer other than Triton 2.51, and why.

A case that is listed and does not differ fails its test, and so does an entry that matches no case: the table cannot
rot. `UNBUILT` goes to zero as features are built; whoever builds one takes its entries out.
"""

from fnmatch import fnmatchcase
from typing import NamedTuple


class Difference(NamedTuple):
    """Cases, as patterns of shell style for `configuration/topic/case`, and the reason why they differ.

    `ours` is a regular expression that the JSON form of our answer matches, where the answers have that in common.
    """

    reason: str
    cases: tuple[str, ...]
    ours: str = ""

    def covers(self, case: str) -> bool:
        """Whether a case is one of these."""
        return any(case == pattern or fnmatchcase(case, pattern) for pattern in self.cases)


BAD_REQUEST = r'"status": 400|"code": "INVALID_ARGUMENT"'
FINE = r'"status": 200|"code": "OK"'

BETTER: tuple[Difference, ...] = (
    # --- newer versions of Triton say the same as we do
    Difference(
        "Newer Triton refuses an output that is requested twice; 2.51 takes the last.",
        (
            "core/grpc_infer/inputs output_twice",
            "core/http_json/member duplicate_output",
            "core/http_validation/outputs twice",
        ),
        r"output 'SUM' already exists in request",
    ),
    Difference(
        "Newer Triton refuses a header length that is no number; 2.51 reads as much of it as is one, or 0.",
        (
            "core/http_binary/header_not_a_number",
            "core/http_binary/header_empty",
            "core/http_binary/header_with_more",
            "core/http_binary/header_float",
            "core/http_binary/header_beyond_int",
        ),
        r'"status": 400.*Unable to parse Inference-Header-Content-Length',
    ),
    Difference(
        "Newer Triton calls a `ready` that is no boolean a bad request; 2.51 an internal error.",
        ("core/http_control/index ready_number", "core/http_control/index ready_string"),
        r'"status": 400',
    ),
    Difference(
        "Newer Triton refuses keys of shared memory that are only slashes, empty, or reserved; we refuse paths, too.",
        (
            "core/http_memory/register_slashes",
            "core/http_memory/register_path",
            "core/http_memory/register_empty_key",
            "core/http_memory/register_reserved",
            "core/grpc_memory/register_without_key",
            "core/grpc_memory/register_reserved",
        ),
        BAD_REQUEST,
    ),
    Difference(
        "Newer Triton names the output that cannot be sent as JSON.",
        ("core/http_json/fp16_output_as_json",),
        r'"status": 400.*for output OUT_FP16',
    ),
    # --- validation
    Difference(
        "The first input that is wrong is the first one of the request; Triton's comes out of a hash table.",
        (
            "core/*/inputs shape_without_batch",
            "core/*/inputs shape_of_one",
            "core/*/inputs shape_dimension",
            "core/*/inputs shape_dimension with id",
            "core/*/inputs shape_more_dimensions",
            "core/*/inputs shape_empty",
            "core/*/inputs shape_zero_batch",
            "core/*/inputs batches_differ",
            "core/*/inputs batches_differ with id",
            "core/*/inputs batch_too_large_and_differing",
            "core/*/inputs three_for_two",
            "core/*/inputs optional_three",
        ),
        BAD_REQUEST,
    ),
    Difference(
        "Inputs reach the model in the order of the request; in Triton in that of a hash table.",
        ("core/grpc_infer/types_together", "core/http_binary/types_together", "core/http_json/several_types"),
        FINE,
    ),
    Difference(
        "A batch of -1 is named as what it is; Triton finds that it does not match the batch of another input.",
        ("core/grpc_infer/inputs shape_negative_batch",),
        r"All input dimensions should be specified for input 'A'",
    ),
    Difference(
        "A required input that is missing is an error, also when there are enough others; Triton only counts.",
        ("core/grpc_infer/inputs optional_only", "core/http_validation/inputs optional_only"),
        r"missing required input\(s\) \['A'\]",
    ),
    Difference(
        "The input of a raw request has the name of the model's input; Triton calls it raw_input.",
        ("core/http_binary/raw_partial_element", "core/http_binary/raw_fixed_too_long"),
        r'"status": 400.*input byte size mismatch for input \'IN\'',
    ),
    Difference(
        "A string that is cut off is told with its request and model, as the other faults of BYTES are.",
        (
            "core/grpc_infer/raw bytes_data_cut",
            "core/http_binary/bytes_data_cut",
            "core/http_binary/bytes_huge_length",
        ),
        r"incomplete string data for inference input 'BYTES' for model 'types', expecting string of length",
    ),
    # --- JSON
    Difference(
        "Of members with the same name the last one counts, as in most parsers; in Triton the first.",
        ("core/http_json/member duplicate_members", "core/http_parameters/request duplicate"),
        FINE,
    ),
    Difference(
        "Of inputs with the same name the last one counts; Triton takes both and refuses the second.",
        ("core/http_generate/generate duplicate_input", "core/http_generate/generate_stream duplicate_input"),
        FINE,
    ),
    Difference(
        "A number beyond the largest double is infinity.",
        ("core/http_json/value fp64_overflow",),
        r'"status": 200.*Infinity',
    ),
    Difference(
        "A number beyond the largest double is infinity, and then the id is no string.",
        ("core/http_json/syntax huge_number",),
        r'"status": 500',
    ),
    Difference(
        "Half a surrogate pair is refused where a string is wanted, not in all of the document.",
        ("core/http_json/syntax lone_surrogate",),
        r'"status": 500',
    ),
    Difference(
        "A null byte does not end the document.",
        ("core/http_json/syntax null_byte",),
        r'"status": 500.*The document root must not be followed by other values',
    ),
    # --- HTTP itself
    Difference(
        "Triton does not answer at all: keep-alive in HTTP/1.0, a second request in the pipeline, chunk extensions.",
        ("core/http_framing/http_1_0_keep_alive", "core/http_framing/pipelined", "core/http_framing/chunk_extension"),
        FINE,
    ),
    Difference(
        "What is no HTTP is answered with 400; Triton closes the connection without a word.",
        (
            "core/http_framing/length_not_a_number",
            "core/http_framing/garbage",
            "core/http_framing/garbage_method",
        ),
        r'"status": 400',
    ),
    Difference(
        "A request line without a version is answered; Triton closes the connection.",
        ("core/http_framing/no_version",),
    ),
    Difference(
        "HTTP/1.1 requires a Host header.",
        ("core/http_framing/without_host",),
        r'"status": 400.*Host',
    ),
    Difference(
        "A method that HTTP does not have is a malformed request; to Triton the wrong method of a route.",
        ("core/http_routes/unknown_method",),
        r'"status": 400',
    ),
    # --- generate
    Difference(
        "The error of a model has the status of its code, as on /infer; in Triton it is always 400.",
        (
            "core/http_generate/generate model_error*",
            "core/http_generate/generate_stream model_error*",
            "decoupled/decoupled/generate error_first",
            "decoupled/decoupled/generate raise",
            "decoupled/decoupled/generate_stream error_first",
            "decoupled/decoupled/generate_stream raise",
        ),
        r'"status": (500|503|404)',
    ),
    # --- gRPC itself
    Difference(
        "A method that is not there is UNIMPLEMENTED with gRPC's own words; other libraries have none.",
        ("core/grpc_queries/unknown_method", "core/grpc_queries/unknown_service", "core/grpc_queries/watch"),
        r'"code": "UNIMPLEMENTED"',
    ),
    Difference("Server reflection is served.", ("core/grpc_queries/reflection",), FINE),
    Difference(
        "A request that is no protobuf message says what it should have been.",
        (
            "core/grpc_queries/not_protobuf",
            "core/grpc_queries/infer_not_protobuf",
            "core/grpc_queries/infer_cut",
        ),
        r'"code": "INTERNAL".*failed to parse the request message',
    ),
    # --- shared memory
    Difference(
        "A region needs a name.",
        ("core/grpc_memory/register_without_name", "core/grpc_memory/cuda_register_nothing"),
        r'"code": "INVALID_ARGUMENT".*\'region name\' is necessary',
    ),
    Difference(
        "Without a GPU the error says so; Triton finds the handle invalid.",
        (
            "core/grpc_memory/cuda_register",
            "core/grpc_memory/cuda_register_short_handle",
            "core/http_memory/cuda_register",
        ),
        r"GPUs not supported",
    ),
    Difference(
        "One object can be registered under two names.",
        tuple(f"core/http_memory/register_second_name.{step}" for step in (2, 3, 4)),
        FINE,
    ),
    Difference(
        "A region beyond its object is a bad request, whether the object is registered already or not.",
        (
            "core/http_memory/register_beyond.2",
            "core/http_memory/register_beyond.3",
            "core/grpc_memory/register_beyond.2",
            "core/grpc_memory/register_beyond.3",
        ),
        r"failed to register shared memory region 's': invalid args",
    ),
    Difference(
        "A region may begin anywhere in its object; Triton maps it and wants a multiple of the page size.",
        tuple(f"core/http_memory/offset_of_region.{step}" for step in range(1, 7)),
    ),
    Difference(
        "The object is opened by its name when a worker first needs it: here it is gone by then.",
        ("core/http_memory/object_removed_while_registered.2",),
        r'"status": 500.*Unable to open shared memory region',
    ),
    # --- sequences
    Difference(
        "A correlation id reaches a model as a string; the Python backend of 2.51 finds two elements in it.",
        ("sequences/sequences/named http.*", "sequences/sequences/named grpc.*"),
        FINE,
    ),
    Difference(
        "Newer Triton refuses a string where the model takes the correlation id as a number; 2.51 makes one of it.",
        ("sequences/sequences/string_for_number",),
        r"sequence batching control 'CORRID' data-type is 'BYTES', but model 'sums' expects 'UINT64'",
    ),
    # --- repository
    Difference(
        "A body that is no JSON is refused before anything else, in load and unload alike.",
        ("core/http_control/repository unload_not_json",),
        r'"status": 500.*failed to parse the request JSON buffer',
    ),
    Difference(
        "A model that is not served after all is not held against the server once it is unloaded.",
        (
            "explicit/explicit/load_broken.10",
            "explicit/explicit/load_broken.11",
            "explicit/explicit/load_broken grpc.4",
        ),
    ),
    Difference(
        "A load without a configuration takes the repository's; in Triton the last one given stays.",
        ("explicit/explicit/load_with_config.5",),
        r'"shape": \[-1\]',
    ),
    Difference(
        "The index lists what is served, also when it came with the request.",
        ("explicit/explicit/load_with_file.3",),
        r'"name": "made_up", "version": "1", "state": "READY"',
    ),
    Difference(
        "A failed load says why.",
        (
            "explicit/explicit/bad_load unknown_model",
            "explicit/explicit/bad_load unknown grpc",
            "explicit/explicit/bad_load config_not_json",
            "explicit/explicit/bad_load config_unknown_field",
            "explicit/explicit/bad_load file_without_config",
            "explicit/explicit/bad_load path_traversal",
        ),
        r"failed to load '\w+', failed to poll from model repository: ",
    ),
    Difference(
        "A configuration that cannot be served is found while it is read, before anything is loaded.",
        (
            "explicit/explicit/failed_reload_keeps_serving.2",
            "explicit/explicit/bad_load config_unknown_backend",
            "explicit/explicit/bad_load config_no_version",
        ),
        r'"status": 500.*failed to poll from model repository: ',
    ),
    Difference(
        "A file that is not base64 is refused; Triton loads what it can decode.",
        ("explicit/explicit/bad_load file_not_base64",),
        r'"status": 400.*is not base64',
    ),
    Difference(
        "A value of the wrong type is refused over HTTP as over gRPC.",
        ("explicit/explicit/unload_with_parameters.2",),
        r'"status": 500',
    ),
    # --- settings
    Difference(
        "A change of settings that is refused changes nothing.",
        ("core/http_control/logging partly_wrong.2",),
        r'"log_warning": true',
    ),
    Difference(
        "A negative number is out of range; Triton takes it modulo 2**32.",
        ("core/http_control/trace rate_negative.1", "core/http_control/trace frequency_negative.1"),
        r'"status": 400.*value is out of range',
    ),
    Difference(
        "A header without a value is forwarded without one; Triton makes it a space.",
        ("guarded/guarded/forward empty_value",),
        r'\\\\"x-golden-empty\\\\": \\\\"\\\\"|"x-golden-empty',
    ),
    # --- models
    Difference(
        "A worker that died is started again, and its request says what happened; Triton's stays dead.",
        ("fragile/fragile/dies.2", "fragile/fragile/dies.3", "fragile/fragile/dies.4", "fragile/fragile/dies grpc"),
    ),
    Difference(
        "Responses that are errors count as failures.",
        ("core/http_queries/statistics after.6", "core/http_queries/statistics after.7"),
        r'"fail": \{"count": 1\}',
    ),
    Difference(
        "An error response of a decoupled model ends its request.",
        ("decoupled/decoupled/stream error", "decoupled/decoupled/stream error empty_final"),
        r'"triton_final_response": \{"bool_param": true\}',
    ),
    # --- calls between models, and the response cache
    Difference(
        "A model that is called may fail with a code of its own; the caller's copy in Triton is always INTERNAL.",
        ("calls/calls/call that is unavailable", "calls/calls/call of a call that fails"),
        r'"status": 503',
    ),
    Difference(
        "The cache's key has the shapes, the outputs asked for and the parameters; Triton's only the inputs' bytes.",
        (
            "calls/calls/cached, equal bytes and different shape.2",
            "calls/calls/cached, other outputs.[23]",
            "calls/calls/cached, other parameters.3",
        ),
        FINE,
    ),
    Difference(
        "Errors are not cached; Triton answers the second time with success and without outputs.",
        ("calls/calls/cached, an error.2",),
        r'"error": "unlucky, 1 times before"',
    ),
    Difference(
        "There is no pool of pinned memory to measure.",
        ("core/http_metrics/page", "core/http_metrics/page_with_slash", "examples/examples/metrics.2"),
    ),
)
"""Where our answer is the better one, or that of newer versions of Triton."""

UNBUILT: tuple[Difference, ...] = ()
"""Features that are not there yet."""


def listed(case: str) -> Difference | None:
    """The entry that covers a case."""
    return next((entry for entry in (*BETTER, *UNBUILT) if entry.covers(case)), None)

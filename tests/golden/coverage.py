"""What must occur among the recorded cases: each error of the protocol, and each route with each of its methods.

python -m tests.golden.coverage        the table
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.golden.replay import recordings
from tests.golden.scenario import Answer, Grpc, Http, Step

Texts = Counter[tuple[str, str]]
"""How often a status (`404`, `NOT_FOUND`; `stream` for errors inside a stream) came with a text."""


class Error(NamedTuple):
    """An error that clients can provoke, by status and text on each protocol that has it."""

    name: str
    phrase: str
    http: str = ""
    grpc: str = ""

    def times(self, texts: Texts, status: str) -> int:
        """How often it was recorded with a status."""
        return sum(n for (found, text), n in texts.items() if found == status and re.search(self.phrase, text))


class Elsewhere(NamedTuple):
    """An error that cannot be recorded, and where our side of it is tested."""

    name: str
    why: str


INVALID = ("400", "INVALID_ARGUMENT")
MISSING = ("404", "NOT_FOUND")
AWAY = ("503", "UNAVAILABLE")
BROKEN = ("500", "INTERNAL")
WITHOUT = ("501", "UNIMPLEMENTED")

LOOKUP = (
    Error("unknown model", r"^Request for unknown model: '\w+' is not found$", *MISSING),
    Error("unknown version", r"^Request for unknown model: '\w+' version \d+ is not found$", *MISSING),
    Error("no version is ready", r"^Request for unknown model: '\w+' has no available versions$", *MISSING),
    Error("version is not ready", r"^Request for unknown model: '\w+' version 1 is not at ready state$", *AWAY),
    Error("version out of range", r"^failed to get model version from specified version string '9{20}'", *INVALID),
    Error("negative version", r"^invalid model version specified '-1' , version should be", grpc="INVALID_ARGUMENT"),
    Error("model is not ready", r"^Model version not ready$", http="400"),
    Error("decoupled model", r"doesn't support models with decoupled transaction policy$", *WITHOUT),
    Error("unknown route", r"^Not Found$", http="404"),
    Error("wrong method", r"^Method Not Allowed$", http="405"),
    Error("unknown method", r"", grpc="UNIMPLEMENTED"),
    Error("restricted", r"^This (API|protocol) is restricted, expecting header", "403", "UNAVAILABLE"),
    Error("statistics of an unknown model", r"^requested model '\w*' is not available$", *INVALID),
    Error("statistics of an unknown version", r"^requested model version is not available for model", *INVALID),
)
TENSORS = (
    Error(
        "missing input",
        r"expected 2 inputs but got 1 inputs for model .* missing required input\(s\) \['B'\]",
        *INVALID,
    ),
    Error("missing input, some optional", r"expected number of inputs between 1 and 2 but got 0 inputs", *INVALID),
    Error("too many inputs", r"expected 2 inputs but got 3 inputs", *INVALID),
    Error("unknown input", r"unexpected inference input 'C' for model", *INVALID),
    Error("unknown output", r"unexpected inference output 'NOPE' for model", *INVALID),
    Error("wrong datatype", r"inference input 'A' data-type is 'INT32', but model '\w+' expects 'FP32'", *INVALID),
    Error("invalid datatype", r"data-type is '<invalid>'", *INVALID),
    Error("wrong shape, batching", r"unexpected shape for input .* Expected \[-1,4\], got \[4\]\. NOTE: ", *INVALID),
    Error("wrong shape", r"unexpected shape for input .* Expected \[-1,-1\], got \[4\]\. $", http="400"),
    Error("open dimension", r"All input dimensions should be specified for input 'A'", grpc="INVALID_ARGUMENT"),
    Error("no shape", r"input '\w' has no shape but model requires batch dimension", *INVALID),
    Error("batch sizes differ", r"input '\w' batch size does not match other inputs", *INVALID),
    Error("batch too large", r"inference request batch-size must be <= 8 for", *INVALID),
    Error("byte size", r"input byte size mismatch for input '\w+' for model '\w+'\. Expected \d+, got \d+", *INVALID),
    Error(
        "too few strings", r"expected \d string elements for inference input 'BYTES' for model 'types', got", *INVALID
    ),
    Error("too many strings", r"unexpected number of string elements \d for inference input 'BYTES'", *INVALID),
    Error("string length cut", r"incomplete string length indicator for inference input 'BYTES'", *INVALID),
    Error("string cut", r"incomplete string data for inference input 'BYTES', expecting string of length", *INVALID),
    Error("duplicate input", r"input 'A' already exists in request$", *INVALID),
    Error("no source of data", r"^Input must set only one of the following fields.* no field is set$", http="400"),
    Error("two sources of data", r"^Input must set only one .* But set 'data' 'binary_data_size'$", http="400"),
    Error("binary section too short", r"^unexpected size for input '\w', expecting \d+ additional bytes", http="400"),
    Error("binary section too long", r"^unexpected additional input data for model", http="400"),
    Error("FP16 in JSON", r"^receiving FP16 data via JSON is not supported\.", http="400"),
    Error("BF16 in JSON", r"^receiving BF16 data via JSON is not supported\.", http="400"),
    Error("FP16 out of JSON", r"^sending FP16 data via JSON is not supported\.", http="400"),
    Error("datatype in JSON", r"^invalid datatype for input", http="400"),
    Error(
        "raw and typed contents", r"^contents field must not be specified when using raw_input", grpc="INVALID_ARGUMENT"
    ),
    Error("no contents", r"^unable to find data for input tensor", grpc="INVALID_ARGUMENT"),
    Error("contents of another type", r"^unexpected explicit tensor data for input tensor", grpc="INVALID_ARGUMENT"),
    Error("contents of two types", r"binary data was already supplied\.$", grpc="INVALID_ARGUMENT"),
    Error("contents and shared memory", r"^unexpected 'content' provided when using shared", grpc="INVALID_ARGUMENT"),
    Error("raw request, several inputs", r"Raw request must only have 1 input", http="400"),
    Error("raw request, open shape", r"The shape of the raw input '\w+' can not be deduced", http="400"),
    Error(
        "raw request, BYTES", r"For BYTE datatype raw input '\w+', the model must have input shape \[1\]", http="400"
    ),
    Error("class of a type without order", r"^class result not available for output due to unsupported type", *INVALID),
    Error(
        "class and shared memory", r"^Output can't set both 'shared_memory_region' and 'classification'$", http="400"
    ),
    Error("binary and shared memory", r"^Output can't set both 'shared_memory_region' and 'binary_data'$", http="400"),
    Error("negative classes", r"classification", *("500", "INVALID_ARGUMENT")),
)
JSON = (
    *(
        Error(f"JSON: {name}", rf"failed to parse the request JSON buffer: {text} at \d+", http="500")
        for name, text in {
            "no value": r"Invalid value\.",
            "nothing": r"The document is empty\.",
            "no name": r"Missing a name for object member\.",
            "no comma in an object": r"Missing a comma or '\}' after an object member\.",
            "no comma in an array": r"Missing a comma or '\]' after an array element\.",
            "more after the root": r"The document root must not be followed by other values\.",
        }.items()
    ),
    *(
        Error(f"no {name}", rf"^Unable to parse '{name}': attempt to access non-existing object member", http="500")
        for name in ("inputs", "name", "datatype", "shape")
    ),
    *(
        Error(f"JSON: not {name}", rf"attempt to access JSON non-{name} as {name}", http="500")
        for name in ("string", "boolean", "number", "array", "signed-integer", "unsigned-integer")
        if name != "number"
    ),
    Error("JSON: not a number", r"attempt to access JSON non-number as double", http="500"),
    Error("JSON: number of values", r"^Unable to parse 'data': Shape does not match true shape of 'data'", http="500"),
    Error("JSON: no text", r"^Unable to parse JSON bytes array: attempt to access JSON non-string as", http="500"),
    Error("JSON: parameters", r"^failed to get request params\.: attempt to get members for non-object", http="500"),
)
PARAMETERS = (
    Error("reserved parameter", r"parameter keys starting with 'triton_' are reserved for Triton usage", *INVALID),
    Error(
        "parameter of no type",
        r"'\w+'.* (has )?invalid type\. It should be either|invalid value type for 'u'",
        *INVALID,
    ),
    Error("type of sequence_id", r"'sequence_id'", *("500", "INVALID_ARGUMENT")),
    Error("type of sequence_start", r"'sequence_start'", *("500", "INVALID_ARGUMENT")),
    Error("type of sequence_end", r"'sequence_end'", *("500", "INVALID_ARGUMENT")),
    Error("type of priority", r"'priority'", *("500", "INVALID_ARGUMENT")),
    Error("type of timeout", r"'timeout'", *("500", "INVALID_ARGUMENT")),
    Error("negative priority", r"invalid value for 'priority', expected value >= 0\.", grpc="INVALID_ARGUMENT"),
    Error("type of binary_data_output", r"'binary_data_output'", http="500"),
    Error("type of triton_enable_empty_final_response", r"'triton_enable_empty_final_response'", grpc="stream"),
    Error("long correlation id", r"string correlation ID cannot be longer than 128 characters", *WITHOUT),
)
SCHEDULING = (
    Error("queue full", r"Exceeds maximum queue size$", *AWAY),
    Error("queue full, stream", r"Exceeds maximum queue size$", grpc="stream"),
    Error("queue timeout", r"^Request timeout expired$", *AWAY),
    Error("queue timeout, stream", r"^Request timeout expired$", grpc="stream"),
    Error("sequence without id", r"must specify a non-zero or non-empty correlation ID$", *INVALID),
    Error("sequence without start", r"must specify the START flag on the first request of the sequence$", *INVALID),
    Error("sequence waits too long", r"^timeout of the corresponding sequence has been expired$", *AWAY[:1]),
    Error("sequence with a batch", r"must specify batch-size 1 due to requirements of sequence batcher$", *INVALID),
    Error("step of an ensemble", r"^in ensemble 'failing_pipeline', ", "503", "NOT_FOUND"),
)
MODELS = (
    Error(
        "execute raises",
        r"^Failed to process the request\(s\) for model 'errors_0', message: ValueError: boom",
        *BROKEN,
    ),
    *(
        Error(f"error {code}", rf"^{code} ?because|^because {code}$", status, grpc)
        for code, status, grpc in (
            ("UNKNOWN", "400", "UNKNOWN"),
            ("INTERNAL", "500", "INTERNAL"),
            ("NOT_FOUND", "404", "NOT_FOUND"),
            ("INVALID_ARG", "400", "INVALID_ARGUMENT"),
            ("UNAVAILABLE", "503", "UNAVAILABLE"),
            ("UNSUPPORTED", "501", "UNIMPLEMENTED"),
            ("ALREADY_EXISTS", "400", "ALREADY_EXISTS"),
            ("CANCELLED", "400", "CANCELLED"),
        )
    ),
    Error("worker dies", r"^Stub process 'dies_0' is not healthy\.$", *BROKEN),
    Error("loading raises", r"^load failed for model 'broken': version 1 is at UNAVAILABLE state: Internal", *INVALID),
    Error(
        "number of responses",
        r"Number of InferenceResponse objects do not match the number of InferenceRequest objects",
        *BROKEN,
    ),
)
MEMORY = (
    Error("register without a region", r"^'region name' is necessary to register (system|cuda) shared", http="400"),
    Error("register without a key", r"^Shared memory register request has no 'key' field$", http="400"),
    Error("register without a size", r"^Shared memory register request has no 'byte_size' field$", http="400"),
    Error("register without a handle", r"^Shared memory register request has no 'raw_handle' field$", http="400"),
    Error("register without a device", r"non-existing object member 'device_id'", http="500"),
    Error("name in use", r"^shared memory region 'r' already in manager$", "400", "ALREADY_EXISTS"),
    Error("no such object", r"^Unable to open shared memory region: '/golden-00000000-none'$", *BROKEN),
    Error("bad handle", r"cudaIpcMemHandle_t|^failed to register shared memory region: invalid args$", *INVALID),
    Error("unknown system region", r"^Unable to find system shared memory region: 'none'$", *MISSING),
    Error("unknown CUDA region", r"^Unable to find cuda shared memory region: 'none'$", *MISSING),
    Error(
        "region of the other kind", r"^The region named 'r' is registered as system shared memory, not CUDA", *MISSING
    ),
    Error("tensor in an unknown region", r"^Unable to find shared memory region: 'r'$", *MISSING),
    Error("offset beyond", r"^Invalid offset for shared memory region: 'r'$", *INVALID),
    Error("size beyond", r"^Invalid offset \+ byte size for shared memory region: 'r'$", *INVALID),
    Error("output too large", r"^shared memory size specified with the request for output 'SUM' \(8 bytes\)", *BROKEN),
)
REPOSITORY = (
    Error("not in explicit mode", r"^explicit model load / unload is not allowed if polling is enabled$", *AWAY),
    Error("named repository", r"^'repository_name' specification is not supported$", *WITHOUT),
    Error("load of an unknown model", r"^failed to load 'nope', failed to poll from model repository$", *BROKEN),
    Error("no version", r"at least one version must be available under the version policy", http="400"),
    Error("no such backend", r"unable to find backend library for backend 'nothing'", http="400"),
    Error(
        "unknown load parameter",
        r"unexpected error on creating Triton parameter|unrecognized load",
        "500",
        "INVALID_ARGUMENT",
    ),
    Error("type of config", r"non-string as string|'config', expected string_param", "500", "INVALID_ARGUMENT"),
    Error("type of a file", r"'file:1/model.py', expected bytes_param", grpc="INVALID_ARGUMENT"),
    Error("type of unload_dependents", r"'unload_dependents' parameter, expected bool_param", grpc="INVALID_ARGUMENT"),
)
SETTINGS = (
    Error("trace level and OFF", r"^Expect only one trace level 'OFF' is specified$", *INVALID),
    Error("trace rate", r"^Unable to parse 'trace_rate', got: abc$", *INVALID),
    Error("trace rate out of range", r"^Unable to parse 'trace_rate', value is out of range", *INVALID),
    Error("trace count", r"^Unable to parse 'trace_count'\. Expecting value >= -1, got: ?-2$", *INVALID),
    Error("log frequency", r"^Unable to parse 'log_frequency', got: x$", http="400"),
    Error("trace file", r"^trace file location can not be updated through network protocol$", *WITHOUT),
    Error("trace without a file", r"^Attempting to set invalid trace setting :trace file name is not given$", *INVALID),
    Error("trace rate zero", r"^Attempting to set invalid trace setting :sample rate must be non-zero$", http="400"),
    Error("trace of an unknown model", r"^Request for unknown model : nope$", *INVALID),
    Error("two trace rates", r"^expect only 1 value for 'trace_rate'$", grpc="INVALID_ARGUMENT"),
    Error("log file", r"^log file location can not be updated through network protocol$", *WITHOUT),
    Error("log format", r"^invalid argument for (--)?log_format, got: xml$", "503", "INVALID_ARGUMENT"),
    Error("type of a log setting", r"^expect boolean for 'log_info'$", grpc="INVALID_ARGUMENT"),
    Error("type of a log level", r"^expect int32 for 'log_verbose_level'$", grpc="INVALID_ARGUMENT"),
    Error("type of a log format", r"^expect string for 'log_format'$", grpc="INVALID_ARGUMENT"),
)
FRAMING = (
    Error("header length", r"^inference header size should be in range \(0, \d+\), got: -1$", http="400"),
    Error("encoding", r"^Unsupported compression type$", http="501"),
    Error("nothing to decompress", r"^nothing to be decompressed$", http="400"),
    Error("encoding of generate", r"^Unsupported content-encoding, only 'identity' is supported\.$", http="400"),
    Error("responses of generate", r"^generate expects model to produce exactly 1 response", http="200"),
    Error("shape of generate", r"^The schema can not convert input '\w' to tensor with proper shape$", http="400"),
    Error("type of generate's parameters", r"^Expected JSON object for keyword: 'parameters'", http="500"),
)
ERRORS = (
    *LOOKUP,
    *TENSORS,
    *JSON,
    *PARAMETERS,
    *SCHEDULING,
    *MODELS,
    *MEMORY,
    *REPOSITORY,
    *SETTINGS,
    *FRAMING,
)
ELSEWHERE = (
    Elsewhere("server is stopping", "in the moment of a stop: tests/e2e"),
    Elsewhere("request is cancelled", "the client that would see it is gone: tests/process"),
    Elsewhere("duplicate output", "newer than 2.51: a listed difference"),
    Elsewhere("limits on input sizes, nesting and chunks", "newer than 2.51: tests/process/test_http_frontend.py"),
    Elsewhere("client shared memory is off", "newer than 2.51: tests/process"),
    Elsewhere("response beyond 2 GiB", "too large to keep: tests/unit/frontends/test_grpc_wire.py"),
)

MODEL, MEMORY_KIND = r"/v2/models/[^/]+", r"/v2/(system|cuda)sharedmemory"
ROUTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"/v2", ("GET",)),
    (r"/v2/health/live", ("GET",)),
    (r"/v2/health/ready", ("GET",)),
    (r"/v2/logging", ("GET", "POST")),
    (r"/v2/trace/setting", ("GET", "POST")),
    (rf"{MODEL}/trace/setting", ("GET", "POST")),
    *((rf"{MODEL}{version}", ("GET",)) for version in ("", r"/versions/\d+")),
    *(
        (rf"{MODEL}{version}/{verb}", methods)
        for verb, methods in (
            ("ready", ("GET",)),
            ("config", ("GET",)),
            ("stats", ("GET",)),
            ("infer", ("POST",)),
            ("generate", ("POST",)),
            ("generate_stream", ("POST",)),
        )
        for version in ("", r"/versions/\d+")
    ),
    *(
        (rf"/v2/{kind}sharedmemory{region}/{verb}", methods)
        for kind in ("system", "cuda")
        for region in ("", r"/region/\w+")
        for verb, methods in (("status", ("GET",)), ("register", ("POST",)), ("unregister", ("POST",)))
    ),
    *(
        (rf"/v2/repository{repository}/{rest}", ("POST",))
        for repository in ("", "/golden")
        for rest in ("index", r"models/\w+/load", r"models/\w+/unload")
    ),
)
"""Every route, as a pattern, with its methods."""
NO_SUCCESS = re.compile(
    r"/v2/cudashared.*/(register|status)|/v2/systemsharedmemory/register|/v2/repository/golden/models"
)
"""Routes that can only refuse here: without a GPU, without a name, with the name of a repository."""


def texts(recorded: Any = None) -> Texts:
    """Every error among the recorded answers."""
    found: Texts = Counter()
    for step, answer in exchanges(recorded):
        found.update(_texts(step, answer))
    return found


def exchanges(recorded: Any = None) -> Iterator[tuple[Step, Answer]]:
    """Every recorded step with its answer; each part of an HTTP step by itself."""
    for topics in (recorded or recordings()).values():
        for scenarios in topics.values():
            for each in scenarios:
                for step, answer in zip(each.scenario.steps, each.answers, strict=True):
                    if isinstance(step, Http) and len(step.parts) > 1:
                        yield from ((step._replace(parts=(p,)), a) for p, a in zip(step.parts, answer, strict=True))
                    else:
                        yield step, answer


def _texts(step: Step, answer: Answer) -> Iterator[tuple[str, str]]:
    if not isinstance(answer, dict):
        return
    if isinstance(step, Grpc):
        yield answer["code"], answer.get("details", "")
        for message in answer.get("messages", ()):
            if "error_message" in message:
                yield "stream", message["error_message"]
    elif isinstance(step, Http):
        for document in (answer.get("json"), *(event.get("json") for event in answer.get("events", ()))):
            if isinstance(document, dict) and "error" in document:
                yield str(answer["status"]), document["error"]


def routes(recorded: Any = None) -> Counter[tuple[str, str, bool]]:
    """How often a path was asked with a method, and whether it was answered with success."""
    found: Counter[tuple[str, str, bool]] = Counter()
    for step, answer in exchanges(recorded):
        if isinstance(step, Http) and isinstance(answer, dict) and step.port == "http":
            method, path, *_ = step.parts[0].split(b"\r\n")[0].decode("latin-1").split(" ")
            found[method, path.partition("?")[0], answer["status"] == 200] += 1
    return found


def main() -> None:
    """Print the table."""
    found, asked = texts(), routes()
    print(f"{'error':45} {'HTTP':>12} {'gRPC':>25}")
    for error in ERRORS:
        cells = [f"{status} x {error.times(found, status)}" if status else "-" for status in (error.http, error.grpc)]
        print(f"{error.name:45} {cells[0]:>12} {cells[1]:>25}")
    for name, why in ELSEWHERE:
        print(f"{name:45} {why}")
    print()
    for pattern, methods in ROUTES:
        counts = Counter[str]()
        for (method, path, _), number in asked.items():
            if re.fullmatch(pattern, path):
                counts[method if method in methods else "other methods"] += number
        print(f"{pattern:45} {', '.join(f'{method} x {number}' for method, number in sorted(counts.items()))}")


if __name__ == "__main__":
    main()

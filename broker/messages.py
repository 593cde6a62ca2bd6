"""Every message on the fabric, and the error codes they carry. Pure: packing and checking, no sockets.

A message is a NamedTuple; on the wire it is `[tag, [*fields]]` in MessagePack, and everything one peer has for another
in one loop turn leaves as one packed list. msgspec checks tags, field counts and types while it decodes, so that what
the receiver handles is well formed; `ProtocolError` names what was not.
"""

from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import Annotated, Any, NamedTuple, TypeAlias, get_args

import msgspec
from msgspec import Meta

from shm.ref import TensorRef

PROTOCOL = 1
"""Version of these messages; a peer says it in its Hello."""


class ProtocolError(ValueError):
    """A peer sent something that is no message of ours."""


class ErrorCode(IntEnum):
    """Neutral error codes, with Triton's numbers (`TRITONSERVER_Error_Code`); frontends map them to their protocol."""

    OK = -1
    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7


def describe_code(code: int) -> str:
    """The code as Triton words it before a message: `Invalid argument`."""
    known = code if code in ErrorCode.__members__.values() else ErrorCode.UNKNOWN
    name = "Invalid argument" if known == ErrorCode.INVALID_ARG else ErrorCode(known).name.replace("_", " ")
    return name.capitalize()


class Part(IntFlag):
    """What one response of a request is. Models that are not decoupled send one, which is both."""

    NONE = 0  # in Executed: the request is still open, its responses come by themselves
    CONTENT = 1  # a response for the client
    FINAL = 2  # nothing follows, and the request's input blocks are free
    TRACED = 4  # whoever sends it to the client says when (Delivered)
    AGAIN = 8  # in Executed: the request is to be executed once more (iterative sequences)


TENSORS = "TENSORS"
"""In place of a trace context: the worker is to tell the request's tensors (TensorsTraced)."""

QUEUE_INPUT, BACKEND_OUTPUT = "TENSOR_QUEUE_INPUT", "TENSOR_BACKEND_OUTPUT"
"""The activities of a trace that have tensors."""

COMPLETE = (Part.CONTENT | Part.FINAL).value  # an integer: flags are compared for every response

STREAM_CREDIT = 16
"""Responses that a model may send to one request ahead of those that its client has consumed."""

NOBODY = "-"
"""The reader of rows of a batch that stand for no request: what a model answers for them is dropped."""

Parameters: TypeAlias = dict[str, Any]
"""Custom request or response parameters: str, int, bool or float by name."""

# ----------------------------------------------------------------------------------------------- every peer


class Hello(NamedTuple):
    """The first message of a peer. `role` is one of the names in `roles.SENT`."""

    protocol: int
    role: str
    pid: int


class Beat(NamedTuple):
    """A peer whose loop turns says so about once a second. `shm_used` and `shm_mapped` are its arenas' bytes."""

    shm_used: int
    shm_mapped: int


class Serving(NamedTuple):
    """A frontend takes requests from now on."""


class RegionOpened(NamedTuple):
    """A producer has made a region: the broker passes it on, its readers map it."""

    name: str


class RegionClosed(NamedTuple):
    """A region is gone (its owner dropped it or died): readers unmap it and answer RegionDropped when asked to."""

    name: str


class RegionDropped(NamedTuple):
    """A reader will not open this region any more, nor read a reference into it that is yet to come."""

    name: str


class PeerGone(NamedTuple):
    """The process behind this token is dead: blocks that it was reading are free again."""

    peer: str


class Stop(NamedTuple):
    """Finish and exit. `reason` is for the log."""

    reason: str


class Log(NamedTuple):
    """A line for the server's log; level is one of `IWEV`."""

    level: str
    text: str


# ----------------------------------------------------------------------------------------------- frontends -> broker


class Target(NamedTuple):
    """Where a client wants an output: `byte_size` bytes at `offset` of a region that it has registered."""

    output: str
    region: str
    offset: int
    byte_size: int


class Infer(NamedTuple):
    """One inference request. `request` is the frontend's own number for it, `request_id` the client's.

    `version` -1 asks for the newest that is ready; `outputs` empty asks for all. `is_raw` marks a body without a
    description: its single input has no name, datatype or shape yet, and 4 bytes of room before its data.
    `timeout_us` and `priority` are the request parameters of those names (0: not given); `received` is when the
    request arrived, in seconds of the monotonic clock. `endpoint` is named in the error where only one response can
    be taken; `""` takes any number. `targets` are outputs that go to the client's own shared memory.
    """

    request: int
    model: str
    version: int
    request_id: str
    inputs: tuple[TensorRef, ...]
    outputs: tuple[str, ...]
    parameters: Parameters
    correlation_id: int | str
    flags: int
    priority: int
    timeout_us: int
    is_raw: bool
    received: float
    endpoint: str = ""
    targets: tuple[Target, ...] = ()
    traceparent: str = ""  # W3C trace context of the client
    tracestate: str = ""
    attempt: int = 0  # of the execution that waits for the answer, when a model calls another
    digest: bytes = b""  # of what decides the answer (`broker.digest`), where that may be cached


class Cancel(NamedTuple):
    """The client of this request is gone; its final Response still comes."""

    request: int


class Consumed(NamedTuple):
    """The client has taken so many more responses of a stream (frontend to broker)."""

    request: int
    responses: int


class CachedRead(NamedTuple):
    """A frontend has read a tensor of a cached response: the reference's generation was minus `entry`."""

    entry: int


class Delivered(NamedTuple):
    """A response with Part.TRACED was sent to its client, between these nanoseconds of the monotonic clock."""

    request: int
    began: int
    ended: int


class GetServerReady(NamedTuple):
    """Is the server ready? Answer: `{"live": bool, "ready": bool}`, and with `is_verbose` why, as `health.report`."""

    request: int
    is_verbose: bool = False


class GetLoading(NamedTuple):
    """Which instances are on their way to be ready? Answer: as `broker.loading.report` says."""

    request: int


class GetModelReady(NamedTuple):
    """Is a model's version ready? Answer: `{"ready": bool}`, also for unknown models."""

    request: int
    model: str
    version: int


class GetModelMetadata(NamedTuple):
    """Answer: `{"name", "versions", "platform", "inputs": [{"name", "datatype", "shape"}], "outputs"}`."""

    request: int
    model: str
    version: int


class GetModelConfig(NamedTuple):
    """Answer: the normalised ModelConfig in its JSON form."""

    request: int
    model: str
    version: int


class GetLabels(NamedTuple):
    """Answer: `{"is_batched": bool, "labels": {output: [label, ...]}}`, what classifying a model's outputs needs."""

    request: int
    model: str
    version: int


class GetStatistics(NamedTuple):
    """Answer: `{"model_stats": [...]}` in the form of the statistics extension; model `""` asks for all."""

    request: int
    model: str
    version: int


class GetMetrics(NamedTuple):
    """Answer: everything the metrics page shows (`broker.statistics.snapshot`)."""

    request: int


class LoadModel(NamedTuple):
    """Load (or reload) a model; mode explicit. Answered when that is done or has failed. Answer: None.

    `config` is a ModelConfig in JSON that replaces config.pbtxt for this load, `files` replace the model's directory:
    content by path relative to it; both may be empty. An `archive` is a directory that holds the model and nothing
    else: a platform that brings models has unpacked it.
    """

    request: int
    model: str
    config: str
    files: dict[str, bytes]
    archive: str = ""


class UnloadModel(NamedTuple):
    """Unload a model; mode explicit. Answered at once: requests under way are finished. Answer: None."""

    request: int
    model: str
    unload_dependents: bool


class GetArchives(NamedTuple):
    """Answer: the archive of each model that was loaded from one, by the model's name."""

    request: int


class GetRepositoryIndex(NamedTuple):
    """Answer: `[{"name", "version"?, "state"?, "reason"?}]`, of the ready versions only when `ready`."""

    request: int
    ready: bool


class UpdateTraceSettings(NamedTuple):
    """Change trace settings of a model (`""`: all) and answer with those in force; `{}` only asks.

    Values are lists of strings, as the protocols carry them; None clears a setting.
    """

    request: int
    model: str
    settings: dict[str, Any]


class UpdateLogSettings(NamedTuple):
    """Change log settings and answer with all of them; `{}` only asks."""

    request: int
    settings: dict[str, Any]


class RegisterRegion(NamedTuple):
    """A client registers memory: kind `system` (a POSIX key) or `cuda` (an IPC handle). Answer: None."""

    request: int
    name: str
    kind: str
    key: str
    offset: int
    byte_size: int
    device_id: int
    handle: bytes


class UnregisterRegion(NamedTuple):
    """A client takes its memory back; name `""` is all of the kind. Answer: None."""

    request: int
    name: str
    kind: str


class GetRegionStatus(NamedTuple):
    """Answer: the registered regions of a kind; name `""` is all."""

    request: int
    name: str
    kind: str


# ----------------------------------------------------------------------------------------------- broker -> frontends


class Welcome(NamedTuple):
    """The answer to a frontend's Hello: its options, and what clients are told about the server."""

    options: dict[str, Any]


class Directory(NamedTuple):
    """Which backend serves each model, and each backend's shm settings `(default, growth, max)` in bytes.

    `decoupled` are the models that send any number of responses to a request. Sent whole whenever it changes. A stale
    copy costs a frontend only its choice of arena, and the order of responses within a stream. Requests to the models
    that are `cached` carry a digest.
    """

    backends: dict[str, str]
    arenas: dict[str, tuple[int, int, int]]
    decoupled: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()


class Response(NamedTuple):
    """A response to Infer; `part` says whether it has content for the client and whether it is the last.

    `code` is OK or the error's; `model` and `version` are those that executed. Errors are always final; one that is
    not Part.CONTENT says that the request was refused at once.
    """

    request: int
    code: int
    error: str
    model: str
    version: int
    outputs: tuple[TensorRef, ...]
    parameters: Parameters
    part: int = COMPLETE


class Answer(NamedTuple):
    """The answer to one of the Get messages."""

    request: int
    code: int
    error: str
    content: Any


# ----------------------------------------------------------------------------------------------- broker -> workers


RECORD_SETTING = "record-directory"
"""Among a backend's settings: where failed requests are kept."""
DIGESTS_SETTING = "file-digests"
"""Likewise: the digests of files that are checked before they are loaded, as JSON."""


class Load(NamedTuple):
    """What a worker is to be: one instance of one version of one model.

    `config` is the ModelConfig as JSON text, `settings` the backend's command-line configuration and those above,
    `arena` the shm sizes (default, growth, max) in bytes.
    """

    model: str
    version: int
    instance: str
    backend: str
    model_directory: str
    kind: str
    device_id: int
    config: str
    settings: dict[str, str]
    arena: tuple[int, int, int]
    log_verbose: int


class SetVerbosity(NamedTuple):
    """The level of verbose log lines has changed to this."""

    log_verbose: int


class Item(NamedTuple):
    """One request of a batch. `reader` is the peer that will read its outputs; `""`: they are kept until PassOn."""

    request_id: str
    inputs: tuple[TensorRef, ...]
    outputs: tuple[str, ...]
    parameters: Parameters
    correlation_id: int | str
    flags: int
    priority: int
    timeout_us: int
    reader: str
    targets: tuple[Target, ...] = ()
    trace: str = ""  # W3C trace context of the execution, as JSON; or TENSORS; "" when it is not traced


class Keep(NamedTuple):
    """The responses to these items of an attempt, which follows, are wanted for the cache if they fit in `limit`."""

    attempt: int
    items: tuple[int, ...]
    limit: int


class Forget(NamedTuple):
    """Blocks of the worker's that the cache does not need any more, by generation."""

    generations: tuple[int, ...]


class Execute(NamedTuple):
    """Run these requests together. `attempt` is never used twice.

    `slots` says for each whose state it continues, where the worker keeps states of sequences; -1 for none.
    """

    attempt: int
    items: tuple[Item, ...]
    slots: tuple[int, ...] = ()


class CheckReady(NamedTuple):
    """Is the model ready, in its own eyes? Answered by ReadyChecked, also while it executes."""

    number: int


class ClientRegion(NamedTuple):
    """Memory that a client has registered, as workers may be asked to read and write it."""

    number: int
    kind: str
    key: str
    offset: int
    byte_size: int
    device_id: int
    handle: bytes


class ClientRegionGone(NamedTuple):
    """No reference to this client region will come any more."""

    number: int


class PassOn(NamedTuple):
    """An output block that the worker has kept for the broker goes to this reader now; `""`: nobody needs it."""

    region: str
    slot: int
    generation: int
    reader: str


class Abandon(NamedTuple):
    """The client of one request of an attempt is gone: the model may stop working on it."""

    attempt: int
    item: int


class Credit(NamedTuple):
    """So many more responses of a request have been consumed (broker to worker)."""

    attempt: int
    item: int
    responses: int


# ----------------------------------------------------------------------------------------------- workers -> broker


Declared: TypeAlias = tuple[tuple[str, str, tuple[int, ...] | None], ...]
"""Name, datatype and dims (None: unchecked) of each input or output."""


class Loaded(NamedTuple):
    """The instance is ready. Inputs and outputs are those that the config does not have.

    `config` are the fields of its configuration that the model has completed, in JSON form (`configs.completion`);
    `is_asked`: the model has a say in whether it is ready (CheckReady).
    """

    inputs: Declared
    outputs: Declared
    config: dict[str, Any]
    is_asked: bool


class WarmedUp(NamedTuple):
    """An instance that is being loaded has executed so many requests of batch size 1; times as in Executed."""

    requests: int
    times: tuple[int, int, int, int]


class LoadProgress(NamedTuple):
    """A worker that loads goes over to this phase: `load`, `warm-up`, and `ready` before Loaded.

    `byte_size` is the most memory that loading has taken, when it is over.
    """

    phase: str
    byte_size: int


class LoadFailed(NamedTuple):
    """The instance cannot be loaded, and trying again would not help."""

    code: int
    error: str


class Result(NamedTuple):
    """What became of one request of a batch, or one of its responses; an error is always final."""

    code: int
    error: str
    outputs: tuple[TensorRef, ...]
    parameters: Parameters
    part: int = COMPLETE


class Responded(NamedTuple):
    """A response sender was used: one response to the `item`-th request of an attempt, which may have returned."""

    attempt: int
    item: int
    result: Result


class Kept(NamedTuple):
    """A copy of a response for the cache, in memory that stays until Forget; comes before its Executed.

    It has taken `ns` nanoseconds.
    """

    attempt: int
    item: int
    outputs: tuple[TensorRef, ...]
    parameters: Parameters
    ns: int


class Executed(NamedTuple):
    """A batch is done; one result for each of its items, in order.

    The times are nanoseconds of the monotonic clock: execution began, inputs were ready, outputs were computed,
    outputs were written.
    """

    attempt: int
    results: tuple[Result, ...]
    times: tuple[int, int, int, int]


class TensorsTraced(NamedTuple):
    """Tensors of the `item`-th request of an attempt, for its trace: name, data, shape and datatype, all as text."""

    attempt: int
    item: int
    activity: str
    tensors: tuple[tuple[str, str, str, str], ...]


class ReadyChecked(NamedTuple):
    """The answer to CheckReady: OK, or why not."""

    number: int
    code: int
    error: str


class DeclareMetric(NamedTuple):
    """A model defines a metric family (labels None), or a metric of a family. Answer: None.

    `kind` is counter, gauge or histogram; `buckets` are a histogram's boundaries, ascending.
    """

    request: int
    family: str
    kind: str
    description: str
    labels: Any
    buckets: tuple[float, ...]


class ChangeMetric(NamedTuple):
    """A model counts: `operation` is increment, set or observe."""

    family: str
    labels: dict[str, str]
    operation: str
    value: float


class GetMetricValue(NamedTuple):
    """Answer: the value of a counter or gauge."""

    request: int
    family: str
    labels: dict[str, str]


class DropMetric(NamedTuple):
    """A model has let go of a metric (labels None: of a family and what is in it)."""

    family: str
    labels: Any


# ----------------------------------------------------------------------------------------------- broker <-> cache


class CacheGet(NamedTuple):
    """Asks the cache process for a response; `reader` is the peer that will read its outputs."""

    number: int
    key: str
    reader: str


class CacheFound(NamedTuple):
    """The answer to CacheGet."""

    number: int
    is_hit: bool
    outputs: tuple[TensorRef, ...]
    parameters: Parameters


class CachePut(NamedTuple):
    """Tells the cache process to store a response."""

    number: int
    key: str
    outputs: tuple[TensorRef, ...]
    parameters: Parameters


class CacheStored(NamedTuple):
    """The outputs of this CachePut are not needed any more, whatever has become of it."""

    number: int


# ----------------------------------------------------------------------------------------------- repository -> broker


class ModelDescribed(NamedTuple):
    """A model as it should be served now (`configs.description.ModelDescription.to_wire`)."""

    description: dict[str, Any]


class ModelRejected(NamedTuple):
    """A model's configuration is wrong. What is served stays; a model never loaded is listed with the reason."""

    model: str
    error: str


class ModelRemoved(NamedTuple):
    """The model is no longer in the repository."""

    model: str


class RepositoryScanned(NamedTuple):
    """The first look at the whole repository is complete; every model was described or rejected before this."""


class RepositoryListed(NamedTuple):
    """The names of all models in the repository, loaded or not, and what is wrong with some; sent when that changes."""

    models: tuple[str, ...]
    errors: dict[str, str]


class WatchRepository(NamedTuple):
    """Lets the repository process begin to look. `is_first`: none has looked since the server's start.

    Else it takes over where clients load and unload: `models` are those to be served, from the repository, and
    `overridden` those under a load request's configuration or out of an archive, whose files are no concern of it.
    """

    is_first: bool
    models: tuple[str, ...]
    overridden: tuple[str, ...]


class DescribeModel(NamedTuple):
    """Asks the repository process to look into a model now (fields as in LoadModel)."""

    model: str
    config: str
    files: dict[str, bytes]
    archive: str = ""


class ModelConsidered(NamedTuple):
    """The answer to DescribeModel, after the ModelDescribed that it may have led to; error `""`: all is well."""

    model: str
    error: str


class ForgetModel(NamedTuple):
    """Tells the repository process that a model was unloaded: its files and overrides need no more attention."""

    model: str


class LoadMeasured(NamedTuple):
    """Tells the repository process how much memory an instance of the model in this directory has taken to load."""

    path: str
    fingerprint: str
    byte_size: int


class PathUnused(NamedTuple):
    """Tells the repository process that no version is served from this model directory any more."""

    path: str


class Traced(NamedTuple):
    """A trace to be written or sent (`broker.tracing.finish`)."""

    record: dict[str, Any]


class MemorySampled(NamedTuple):
    """Proportional set size by process id, in bytes; and gauges of the machine by metric name.

    A gauge is a number, or a dict of numbers by GPU uuid; `gpu_uuids` are the uuids by index. `gpus` is what processes
    have in the memory of GPUs, by process id and by the GPU's entry in CUDA_VISIBLE_DEVICES.
    """

    pss: dict[int, int]
    system: dict[str, Any]
    gpus: dict[int, dict[str, int]]


class Sample(NamedTuple):
    """Asks the repository process to sample these processes' memory."""

    pids: tuple[int, ...]


Message: TypeAlias = (
    Hello
    | Beat
    | Serving
    | RegionOpened
    | RegionClosed
    | RegionDropped
    | PeerGone
    | Stop
    | Log
    | Infer
    | Cancel
    | Consumed
    | CachedRead
    | Delivered
    | GetServerReady
    | GetLoading
    | GetModelReady
    | GetModelMetadata
    | GetModelConfig
    | GetLabels
    | GetStatistics
    | GetMetrics
    | LoadModel
    | UnloadModel
    | GetArchives
    | GetRepositoryIndex
    | UpdateTraceSettings
    | UpdateLogSettings
    | RegisterRegion
    | UnregisterRegion
    | GetRegionStatus
    | Welcome
    | Directory
    | Response
    | Answer
    | Load
    | SetVerbosity
    | Keep
    | Forget
    | Execute
    | CheckReady
    | ClientRegion
    | ClientRegionGone
    | PassOn
    | Abandon
    | Credit
    | Loaded
    | WarmedUp
    | LoadProgress
    | LoadFailed
    | Kept
    | Executed
    | Responded
    | TensorsTraced
    | ReadyChecked
    | DeclareMetric
    | ChangeMetric
    | GetMetricValue
    | DropMetric
    | ModelDescribed
    | ModelRejected
    | ModelRemoved
    | RepositoryScanned
    | RepositoryListed
    | Traced
    | WatchRepository
    | DescribeModel
    | ModelConsidered
    | ForgetModel
    | PathUnused
    | LoadMeasured
    | MemorySampled
    | Sample
    | CacheGet
    | CacheFound
    | CachePut
    | CacheStored
)

_CLASSES: tuple[type[Any], ...] = get_args(Message)
_TAGS: dict[type[Any], int] = {cls: tag for tag, cls in enumerate(_CLASSES)}

MAX_MESSAGE = 1 << 30
"""Bytes of one packed list; more is a broken peer."""


_ENCODER = msgspec.msgpack.Encoder()
_LIST = msgspec.msgpack.Decoder(list[tuple[Annotated[int, Meta(ge=0)], msgspec.Raw]])
_DECODE = [msgspec.msgpack.Decoder(cls).decode for cls in _CLASSES]


def encode(messages: Iterable[Message]) -> bytes:
    """Pack messages for one peer into one list. Raises TypeError, ValueError, OverflowError for what cannot travel."""
    return _ENCODER.encode([(_TAGS[type(m)], m) for m in messages])


def decode(data: bytes) -> list[Message]:
    """The mirror of `encode`. Raises ProtocolError."""
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(f"a message list of {len(data)} bytes")
    try:
        return [_DECODE[tag](body) for tag, body in _LIST.decode(data)]
    except (msgspec.MsgspecError, IndexError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"malformed message: {error}") from None

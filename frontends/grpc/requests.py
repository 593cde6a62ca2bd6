"""A ModelInferRequest on its way in: its bytes into shared memory, the rest into the message for the broker."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from broker.client import Client
from broker.messages import ErrorCode, GetModelMetadata, Infer
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.outputs import requested_outputs
from frontends.grpc.parameters import enables_empty_final_response, read_parameters
from frontends.grpc.service import Service
from frontends.grpc.tensors import InputTensor, input_tensors
from frontends.versions import parse_version
from shm.arena import ArenaFull, Block, Buffer
from shm.ref import TensorRef

MAX_DESCRIPTION = 4 << 20
"""Bytes of a request besides its tensors: they travel through the broker, which every other request needs, too."""

Metadata: TypeAlias = Mapping[str, Any]
"""What gRPC calls the headers of a call: names in lower case; values are str, or bytes if the name ends in `-bin`."""


class Inference(NamedTuple):
    """A request that is ready to be sent; its `blocks` are to be given to the client with it, or released.

    `classes` is how many of an output's classes are wanted, by the output's name.
    """

    infer: Infer
    blocks: list[Block]
    classes: Mapping[str, int]
    enables_empty_final: bool


async def prepare(
    service: Service, request: ProtoMessage, raw: Sequence[Buffer], metadata: Metadata, endpoint: str = ""
) -> Inference:
    """Make a request ready whose raw contents are `raw`. Raises RequestError.

    With an `endpoint` it has to have exactly one response. That its model cannot be asked is the first of all errors.
    """
    received = time.monotonic()
    version = parse_version(request.model_version)
    blocks: list[Block] = []
    try:
        _check_size(request)
        parameters = read_parameters(request.parameters)
        tensors = input_tensors(request, raw)
        outputs = requested_outputs(request)
        forwarded = service.forwarding.parameters(_texts(metadata))
        inputs = [await _stored(service.client, request.model_name, tensor, blocks) for tensor in tensors]
    except RequestError:
        service.client.release(blocks)
        await _refuse_model(service, request.model_name, version, endpoint)
        raise
    except BaseException:
        service.client.release(blocks)
        raise
    infer = Infer(
        request=service.client.number(),
        model=request.model_name,
        version=version,
        request_id=request.id,
        inputs=tuple(inputs),
        outputs=outputs.names,
        parameters=parameters.custom | forwarded,
        correlation_id=parameters.correlation_id,
        flags=parameters.flags,
        priority=parameters.priority,
        timeout_us=parameters.timeout_us,
        is_raw=False,
        received=received,
        endpoint=endpoint,
        targets=outputs.targets,
        traceparent=metadata.get("traceparent", ""),
        tracestate=metadata.get("tracestate", ""),
    )
    return Inference(infer, blocks, outputs.classes, enables_empty_final_response(request.parameters))


def _check_size(request: ProtoMessage) -> None:
    size = request.ByteSize()
    if size > MAX_DESCRIPTION:
        size -= sum(tensor.contents.ByteSize() for tensor in request.inputs)
    if size > MAX_DESCRIPTION:
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"the request without its tensors has {size} bytes, the limit is {MAX_DESCRIPTION}: pass large values as "
            "tensors",
        )


async def _stored(client: Client, model: str, tensor: InputTensor | TensorRef, blocks: list[Block]) -> TensorRef:
    """An input where workers can read it; its block is added to `blocks`. Raises RequestError."""
    if isinstance(tensor, TensorRef):
        return tensor
    try:
        return await client.store(model, *tensor, blocks)
    except ArenaFull as error:
        raise RequestError(ErrorCode.UNAVAILABLE, str(error)) from None


async def _refuse_model(service: Service, model: str, version: int, endpoint: str) -> None:
    """Raise the error of a model that cannot be asked in this way, if that is so."""
    await service.ask(lambda number: GetModelMetadata(number, model, version))
    if endpoint and model in service.client.directory.decoupled:
        text = f"{endpoint} doesn't support models with decoupled transaction policy"
        raise RequestError(ErrorCode.UNSUPPORTED, text)


def _texts(metadata: Metadata) -> Iterator[tuple[str, str]]:
    return ((name, value.decode("latin-1") if isinstance(value, bytes) else value) for name, value in metadata.items())

"""ModelInfer: a request's bytes into shared memory and onto the fabric, a response's bytes into the answer."""

import time
from collections.abc import Sequence

from broker.client import Client
from broker.messages import ErrorCode, GetModelMetadata, Infer, Response
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage, message
from frontends.grpc.parameters import read_parameters, write_parameters
from frontends.grpc.tensors import input_tensors, output_names
from frontends.grpc.version import parse_version
from frontends.grpc.wire import join_response, split_request
from shm.arena import ArenaFull, Block, Buffer

ENDPOINT = "ModelInfer RPC"
"""What a client is told cannot serve a decoupled model."""

_ModelInferResponse = message("inference.ModelInferResponse")


async def infer(client: Client, data: bytes) -> bytes:
    """Serve one ModelInferRequest and return the ModelInferResponse, both in wire form. Raises RequestError."""
    received = time.monotonic()
    request, raw = split_request(data)
    version = parse_version(request.model_version)
    blocks: list[Block] = []
    try:
        question = await _question(client, request, raw, version, received, blocks)
    except RequestError:
        client.release(blocks)
        await _refuse_unknown(client, request.model_name, version)
        raise
    except BaseException:
        client.release(blocks)
        raise
    response = await client.infer(question, blocks)
    try:
        if response.code != ErrorCode.OK:
            raise RequestError(response.code, response.error)
        return join_response(response_message(response, request.id), _outputs(client, response))
    finally:
        client.done_with(response.outputs)


def response_message(response: Response, request_id: str) -> ProtoMessage:
    """The ModelInferResponse of a successful response, without the raw contents of its outputs."""
    answer = _ModelInferResponse(model_name=response.model, model_version=str(response.version), id=request_id)
    for ref in response.outputs:
        answer.outputs.add(name=ref.name, datatype=ref.datatype, shape=ref.shape)
    write_parameters(response.parameters, answer.parameters)
    return answer


def _outputs(client: Client, response: Response) -> list[Buffer]:
    """The bytes of a response's outputs, where they lie. Raises RequestError."""
    try:
        return [client.regions.view(ref) for ref in response.outputs]
    except (KeyError, ValueError) as error:
        text = f"the output of model '{response.model}' is lost: {error}"
        raise RequestError(ErrorCode.INTERNAL, text) from None


async def _question(
    client: Client, request: ProtoMessage, raw: Sequence[Buffer], version: int, received: float, blocks: list[Block]
) -> Infer:
    """The request as a message, its inputs stored; their blocks are added to `blocks`. Raises RequestError."""
    model = request.model_name
    parameters = read_parameters(request.parameters)
    tensors = input_tensors(request, raw)
    outputs = output_names(request)
    try:
        inputs = [await client.store(model, *tensor, blocks) for tensor in tensors]
    except ArenaFull as error:
        raise RequestError(ErrorCode.UNAVAILABLE, str(error)) from None
    return Infer(
        request=client.number(),
        model=model,
        version=version,
        request_id=request.id,
        inputs=tuple(inputs),
        outputs=outputs,
        parameters=parameters.custom,
        correlation_id=parameters.correlation_id,
        flags=parameters.flags,
        priority=parameters.priority,
        timeout_us=parameters.timeout_us,
        is_raw=False,
        received=received,
        endpoint=ENDPOINT,
    )


async def _refuse_unknown(client: Client, model: str, version: int) -> None:
    """Raise the error of a model or version that cannot be asked, if that is so: it comes before all others."""
    number = client.number()
    answer = await client.ask(GetModelMetadata(number, model, version), number)
    if answer.code != ErrorCode.OK:
        raise RequestError(answer.code, answer.error)

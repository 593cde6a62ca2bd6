"""A response on its way out: as the ModelInferResponse that a client is to get, and the bytes of its outputs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from broker.client import Client
from broker.messages import ErrorCode, Response
from frontends.classification import classify
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage, message
from frontends.grpc.parameters import write_parameters
from frontends.grpc.service import Service
from frontends.shared_memory import is_in_client_memory
from shm.arena import Buffer
from shm.ref import TensorRef

_ModelInferResponse = message("inference.ModelInferResponse")


class Answer(NamedTuple):
    """A ModelInferResponse without the raw contents of its outputs, and these."""

    message: ProtoMessage
    raw: Sequence[Buffer]


async def answer_with(service: Service, request_id: str, response: Response, classes: Mapping[str, int]) -> Answer:
    """What a response says to the client, its bytes where they lie. Raises RequestError with its error, if it is one.

    `classes` is how many of an output's classes are wanted, by the output's name.
    """
    if response.code != ErrorCode.OK:
        raise RequestError(response.code, response.error)
    outputs = [(ref, _bytes(service.client, ref, response.model)) for ref in response.outputs]
    if classes:
        known = await service.labels.of(response.model, response.version)
        for index, (ref, data) in enumerate(outputs):
            if ref.name in classes:
                classified = classify(ref, data, classes[ref.name], known)
                outputs[index] = classified, classified.data or b""
    answer = _ModelInferResponse(model_name=response.model, model_version=str(response.version), id=request_id)
    for ref, _ in outputs:
        answer.outputs.add(name=ref.name, datatype=ref.datatype, shape=ref.shape)
    write_parameters(response.parameters, answer.parameters)
    return Answer(answer, [data for _, data in outputs])


def _bytes(client: Client, ref: TensorRef, model: str) -> Buffer:
    """The bytes of an output, none when it went to the client's memory. Raises RequestError."""
    if is_in_client_memory(ref):
        return b""
    try:
        return client.regions.view(ref)
    except (KeyError, ValueError) as error:
        raise RequestError(ErrorCode.INTERNAL, f"the output of model '{model}' is lost: {error}") from None

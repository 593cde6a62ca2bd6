"""The outputs of a response: copied out of shared memory, and their blocks given back."""

from broker.client import Client
from broker.messages import ErrorCode, Response
from frontends.errors import RequestError
from frontends.shared_memory import is_in_client_memory
from shm import copies
from shm.ref import TensorRef


def take_outputs(client: Client, response: Response) -> list[bytes]:
    """The bytes of each output, none for those in the client's memory; the blocks go back, whatever happens.

    Raises RequestError with the response's error, if it is one.
    """
    try:
        if response.code != ErrorCode.OK:
            raise RequestError(response.code, response.error)
        return [_copied(client, ref) for ref in response.outputs]
    except (KeyError, ValueError) as error:
        text = f"the output of model '{response.model}' is lost: {error}"
        raise RequestError(ErrorCode.INTERNAL, text) from None
    finally:
        client.done_with(response.outputs)


def _copied(client: Client, ref: TensorRef) -> bytes:
    if ref.data is not None:
        return ref.data
    if is_in_client_memory(ref):
        return b""
    copies.count("response", ref.byte_size)
    return bytes(client.regions.view(ref))

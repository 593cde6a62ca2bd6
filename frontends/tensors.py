"""Tensors between the protocols' values and shared memory: encoding inputs, copying outputs out."""

import itertools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from broker.client import Client
from broker.messages import ErrorCode, Response
from frontends.errors import RequestError
from shm import copies
from shm.arena import Buffer
from shm.ref import TensorRef
from shm.tensor import NUMPY

_WIDEST = {"b": np.dtype(np.bool_), "i": np.dtype(np.int64), "u": np.dtype(np.uint64), "f": np.dtype(np.float64)}
"""What values of each kind of number are first read as: protocols carry few widths."""


def encode(datatype: str, values: Sequence[Any]) -> Buffer:
    """Flat values in the protocol's binary form; for BYTES the values are `bytes`.

    Integers that are too wide for the datatype lose their upper bits, an FP32 overflow becomes infinite. Raises
    OverflowError for an integer beyond 64 bits.
    """
    if datatype == "BYTES":
        lengths = [struct.pack("<I", len(value)) for value in values]
        return b"".join(itertools.chain.from_iterable(zip(lengths, values, strict=True)))
    dtype = NUMPY[datatype]
    with np.errstate(over="ignore"):
        return np.array(values, dtype=_WIDEST[dtype.kind]).astype(dtype).view(np.uint8).data


def take_outputs(client: Client, response: Response) -> list[bytes]:
    """Copy the outputs of a response out of shared memory and give their blocks back, whatever happens.

    Raises RequestError with the response's error, if it is one.
    """
    if response.code != ErrorCode.OK:
        client.done_with(response.outputs)
        raise RequestError(response.code, response.error)
    try:
        return [_copy(client, ref) for ref in response.outputs]
    except (KeyError, ValueError) as error:
        raise RequestError(ErrorCode.INTERNAL, f"an output of model '{response.model}' is lost: {error}") from None
    finally:
        client.done_with(response.outputs)


def _copy(client: Client, ref: TensorRef) -> bytes:
    if ref.data is not None:
        return ref.data
    copies.count("response", ref.byte_size)
    return bytes(client.regions.view(ref))


def unknown_region(name: str) -> RequestError:
    """The refusal of a tensor that lies in a region which no client has registered."""
    return RequestError(ErrorCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")


def no_classification(output: str) -> RequestError:
    """The refusal of class strings instead of an output's values."""
    return RequestError(ErrorCode.UNSUPPORTED, f"'classification' is not supported, requested for output '{output}'")

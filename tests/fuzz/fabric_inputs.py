"""Messages of the fabric: plausible ones made from their types, and broken ones made of these."""

import random
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgpack

from broker.messages import Message, Parameters, Result, Target
from broker.roles import SENT
from shm.ref import TensorRef
from tests.fuzz import mutate

CLASSES: tuple[type[Any], ...] = get_args(Message)
MODELS = ("add_sub", "identity_fp32", "matrix", "nope")
TEXTS = (
    *(*MODELS, "", "IN", "A", "B", "SUM", "OUT_IN", "FP32", "INT32", "BYTES", "<invalid>", "http", "worker", "I", "E"),
    *("r", "system", "cuda", "/key", "/../etc/passwd", "tidepool-x-f1-0", "../../../tmp/x", "gauge", "counter", "1"),
)
NUMBERS = (0, 1, 2, 3, 4, 7, -1, 100, 2**31, 2**32, 2**63 - 1, 2**64 - 1, -(2**63))
SCALARS: dict[Any, tuple[Any, ...]] = {
    Any: (None, 1, "x", {}, []),
    NoneType: (None,),
    bool: (True, False),
    int: NUMBERS,
    float: (0.0, 1.5, -1.0, 1e300, float("inf"), float("nan")),
    bytes: (b"", b"x", bytes(8)),
}


def message(rng: random.Random, role: str) -> list[Any]:
    """A message as it travels, its tag and fields of the right types; it is mostly one that the role may send."""
    kinds = [kind for kind in CLASSES if kind in SENT[role]] if rng.random() < 0.95 else CLASSES
    kind = rng.choice(kinds)
    return [CLASSES.index(kind), _fields(rng, kind)]


def _fields(rng: random.Random, cls: type[Any]) -> list[Any]:
    if cls is TensorRef:
        return _reference(rng)
    return [_value(rng, annotation) for annotation in cls.__annotations__.values()]


def _reference(rng: random.Random) -> list[Any]:
    """A TensorRef with its bytes inside, or somewhere."""
    shape = rng.choice(([], [1], [2], [4], [1, 4], [0], [-1], [2**40, 2**40], [1] * 33))
    data = rng.choice((b"", b"\0\0\x80\x3f", bytes(8), bytes(16), None))
    size = rng.choice((4, 8, 16, 0, 2**40)) if data is None else len(data)
    place = (
        [rng.choice(TEXTS), abs(rng.choice(NUMBERS[:10])), *rng.choices(NUMBERS, k=2)]
        if data is None
        else ["", 0, 0, 0]
    )
    return [rng.choice(TEXTS), rng.choice(TEXTS), shape, size, data, *place]


def _value(rng: random.Random, annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Parameters or origin is dict or annotation is dict:
        return {rng.choice(TEXTS): rng.choice((1, "x", 1.5, True)) for _ in range(rng.randrange(3))}
    if origin in (UnionType, Union):
        return _value(rng, rng.choice(arguments))
    if origin is tuple and arguments[-1] is ...:
        return [_value(rng, arguments[0]) for _ in range(rng.choice((0, 1, 1, 2, 5)))]
    if origin is tuple:
        return [_value(rng, argument) for argument in arguments]
    if annotation in (TensorRef, Target, Result) or hasattr(annotation, "_fields"):
        return _fields(rng, annotation)
    return _scalar(rng, annotation)


def _scalar(rng: random.Random, annotation: Any) -> Any:
    return rng.choice(SCALARS.get(annotation, TEXTS))


def packed(rng: random.Random, role: str = "http") -> bytes:
    """A packed list of messages of a peer of this role, more or less broken."""
    messages: Any = [message(rng, role) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
    action = rng.random()
    if action < 0.5:
        messages = mutate.tree(rng, messages, has_huge=False)
    try:
        data: bytes = msgpack.packb(messages, unicode_errors="surrogatepass")
    except (ValueError, OverflowError, TypeError):
        data = b"\xc1"
    return mutate.data(rng, data) if action > 0.8 else data

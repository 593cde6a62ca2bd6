"""Makes bad inputs of good ones: bytes, trees of JSON or msgpack values, and protobuf messages on the wire."""

import math
import random
from collections.abc import Callable
from typing import Any

NUMBERS: tuple[int | float, ...] = (
    *(0, 1, -1, 2, 7, 64, 100, 255, 256, 65535, 65536, 10**6),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
    *(-(2**31), -(2**31) - 1, -(2**63), 0.0, -0.0, 1.5, 1e39, -1e308, 5e-324),
)
UNSIGNED = tuple(number for number in NUMBERS if isinstance(number, int) and number >= 0)
HUGE: tuple[int | float, ...] = (2**64, 2**127, 10**400, -(2**63) - 1, math.inf, -math.inf, math.nan)
"""Numbers that msgpack or JSON cannot carry as integers of 64 bits."""
TEXTS = (
    *("", "a", "A", "B", "IN", "SUM", "nope", " ", "\0", "\n", '"', "\\", "'", "é", "日本", "\ud800", "\u202e"),
    *("triton_x", "sequence_id", "FP32", "fp32", "INT32", "BYTES", "BF16", "<invalid>", "-1", "1e9", "NaN", "null"),
    *("../../etc/passwd", "/dev/mem", "%2e%2e", "%s%n", "{0}", "${HOME}", "__class__", "x" * 300, "y" * 70_000),
)


def pick(rng: random.Random, *choices: Any) -> Any:
    """One of these; a callable is called."""
    chosen = rng.choice(choices)
    return chosen() if callable(chosen) else chosen


def value(rng: random.Random, has_huge: bool = True) -> Any:
    """Any value at all."""
    numbers = NUMBERS + HUGE if has_huge else NUMBERS
    return pick(
        rng,
        None,
        True,
        False,
        [],
        {},
        lambda: rng.choice(numbers),
        lambda: rng.choice(numbers),
        lambda: rng.choice(TEXTS),
        lambda: [rng.choice(numbers) for _ in range(rng.randrange(1, 9))],
        lambda: {rng.choice(TEXTS): rng.choice(numbers)},
        lambda: nested(rng.choice((1, 2, 50, 99, 100, 101, 200))),
    )


def nested(depth: int) -> Any:
    """An array in an array in an array."""
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


def tree(rng: random.Random, root: Any, has_huge: bool = True) -> Any:
    """A copy of a tree of lists and dicts with one to four changes."""
    made = _copied(root)
    for _ in range(rng.randrange(1, 5)):
        made = _changed(rng, made, has_huge)
    return made


def _copied(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copied(each) for key, each in node.items()}
    if isinstance(node, list | tuple):
        return [_copied(each) for each in node]
    return node


def _changed(rng: random.Random, root: Any, has_huge: bool) -> Any:
    """Change something at a place in the tree, in place where that is possible."""
    parent: Any = None
    key: Any = None
    node = root
    while isinstance(node, dict | list) and node and rng.random() < 0.8:
        parent, key = node, rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = parent[key]
    made = _replacement(rng, node, has_huge)
    if parent is None:
        return made
    action = rng.random()
    if action < 0.15:
        del parent[key]
    elif action < 0.3 and isinstance(parent, dict):
        parent[rng.choice(TEXTS)] = parent.pop(key)
    elif action < 0.3:
        parent.insert(key, _copied(node))
    else:
        parent[key] = made
    return root


def _replacement(rng: random.Random, node: Any, has_huge: bool) -> Any:
    """Something in place of a node, often of its type."""
    choices: tuple[Any, ...] = ()
    if isinstance(node, bool):
        choices = (not node,)
    elif isinstance(node, int | float):
        choices = (node + 1, node - 1, -node, node * 2, rng.choice(NUMBERS))
    elif isinstance(node, str):
        choices = (node[:-1], node + node, node.swapcase(), node[::-1], rng.choice(TEXTS))
    elif isinstance(node, bytes):
        choices = (data(rng, node),)
    elif isinstance(node, list) and node:
        choices = (node[1:], node + node, [node], node[0], node * 50, node[::-1])
    elif isinstance(node, dict):
        choices = (list(node), list(node.values()), [node], {**node, rng.choice(TEXTS): value(rng, has_huge)})
    return rng.choice(choices) if choices and rng.random() < 0.6 else value(rng, has_huge)


def data(rng: random.Random, seed: bytes) -> bytes:
    """Bytes with one to eight changes."""
    made = bytearray(seed)
    for _ in range(rng.randrange(1, 9)):
        at = rng.randrange(len(made) + 1)
        rng.choice(_BYTE_CHANGES)(rng, made, at)
    return bytes(made)


def _flip(rng: random.Random, made: bytearray, at: int) -> None:
    if at < len(made):
        made[at] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, made: bytearray, at: int) -> None:
    made[at : at + rng.randrange(1, 5)] = rng.choice(
        (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x80", b"\r\n", b"0", b"-")
    )


def _insert(rng: random.Random, made: bytearray, at: int) -> None:
    made[at:at] = rng.randbytes(rng.randrange(1, 9))


def _remove(rng: random.Random, made: bytearray, at: int) -> None:
    del made[at : at + rng.randrange(1, 9)]


def _repeat(rng: random.Random, made: bytearray, at: int) -> None:
    made[at:at] = made[at : at + rng.randrange(1, 33)] * rng.randrange(1, 4)


def _cut(_rng: random.Random, made: bytearray, at: int) -> None:
    del made[at:]


_BYTE_CHANGES: tuple[Callable[[random.Random, bytearray, int], None], ...] = (
    *(_flip, _flip, _flip, _overwrite, _overwrite, _insert, _remove, _repeat, _cut),
)

# ----------------------------------------------------------------------------------------------- protobuf

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def protobuf(rng: random.Random, seed: bytes) -> bytes:
    """A message on the wire with changed fields, or with changed bytes."""
    fields = parse_fields(seed)
    if fields is None or not fields or rng.random() < 0.15:
        return data(rng, seed)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(fields))
        fields[at : at + 1] = _changed_field(rng, *fields[at])
        if not fields:
            break
    return b"".join(_field(*each) for each in fields)


def parse_fields(seed: bytes) -> list[tuple[int, int, Any]] | None:
    """The fields of a message as `(number, wire type, content)`; None when it is no message."""
    fields: list[tuple[int, int, Any]] = []
    position = 0
    try:
        while position < len(seed):
            key, position = _read_varint(seed, position)
            kind = key & 7
            if kind == VARINT:
                content, position = _read_varint(seed, position)
                fields.append((key >> 3, kind, content))
                continue
            size = {FIXED64: 8, FIXED32: 4}.get(kind)
            if size is None:
                if kind != LENGTH:
                    return None
                size, position = _read_varint(seed, position)
            if position + size > len(seed):
                return None
            fields.append((key >> 3, kind, seed[position : position + size]))
            position += size
    except IndexError:
        return None
    return fields


def _changed_field(rng: random.Random, number: int, kind: int, content: Any) -> list[tuple[int, int, Any]]:
    """The fields that take the place of one."""
    same = (number, kind, content)
    action = rng.random()
    if action < 0.2:
        return [same] * rng.choice((0, 0, 2, 3, 50))
    if action < 0.3:
        return [(rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 15, 100, 2**29 - 1)), kind, content)]
    if action < 0.35:
        return [same, (rng.randrange(1, 9), VARINT, rng.choice(UNSIGNED))]
    if kind == VARINT:
        return [(number, kind, rng.choice(UNSIGNED))]
    return [(number, kind, _changed_content(rng, content) if kind == LENGTH else rng.randbytes(len(content)))]


def _changed_content(rng: random.Random, content: bytes) -> bytes:
    inner = parse_fields(content)
    if inner and rng.random() < 0.7:
        return protobuf(rng, content)
    return rng.choice(
        (
            b"",
            content + content,
            data(rng, content),
            rng.choice(TEXTS).encode("utf-8", "replace"),
            b"".join(varint(rng.choice(UNSIGNED)) for _ in range(rng.randrange(1, 9))),
            rng.randbytes(rng.choice((1, 4, 8, 16, 1000))),
        )
    )


def _field(number: int, kind: int, content: Any) -> bytes:
    key = varint(number << 3 | kind)
    if kind == VARINT:
        return key + varint(content)
    return b"".join((key, varint(len(content)) if kind == LENGTH else b"", content))


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def _read_varint(seed: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = seed[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, position
        if shift > 63:
            raise IndexError

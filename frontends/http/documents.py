"""JSON documents as Triton reads and writes them: NaN and Infinity, bytes that are no UTF-8, its error texts.

orjson does the work; what it refuses and Triton accepts goes through the standard library's slower parser.
"""

import json
import re
from typing import Any, TypeAlias, TypeGuard

import orjson

from broker.messages import ErrorCode
from frontends.errors import RequestError
from shm.arena import Buffer

Members: TypeAlias = dict[str, Any]
"""A JSON object."""

MAX_UNSIGNED = 2**64 - 1
MAX_NESTING = 100
"""Levels of arrays in a tensor's data; deeper ones are refused."""

_TEXTS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Extra data": "The document root must not be followed by other values.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid escape character in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Possessive, and with a closing quote that may be missing: linear in time, whatever the text."""
_SHORT_INFINITY = re.compile(r"\bInf\b")
_STRING_OR_SHORT_INFINITY = re.compile(rf"({_STRINGS.pattern})|\bInf\b", re.DOTALL)


def parse(text: Buffer) -> Any:
    """The document in `text`. Bytes that are no UTF-8 become lone surrogates. Raises RequestError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_leniently(bytes(text).decode("utf-8-sig", "surrogateescape"))


def _parse_leniently(text: str) -> Any:
    if not text or text.isspace():
        raise _unparsable("The document is empty.", len(text))
    if _SHORT_INFINITY.search(text):
        text = _STRING_OR_SHORT_INFINITY.sub(lambda match: match[1] or "Infinity", text)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _unparsable(*_described(error)) from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:  # Python refuses integers of thousands of digits
        raise _unparsable("Number too big to be stored in double.", 0) from None


def _described(error: json.JSONDecodeError) -> tuple[str, int]:
    """Triton's words for a syntax error, and its offset."""
    text, position = error.doc, error.pos
    if error.msg in {"Expecting ',' delimiter", "Extra data"} and (number := _BROKEN_NUMBER.match(text, position - 1)):
        return f"Miss {'fraction part' if number[1] == '.' else 'exponent'} in number.", number.end()
    if error.msg == "Expecting ',' delimiter":
        before = _STRINGS.sub("", text[:position])
        in_array = _innermost(before) == "["
        return f"Missing a comma or {']' if in_array else '}'!r} after an {_CONTAINER[in_array]}.", position
    if error.msg == "Expecting value" and (begun := _BEGUN_VALUE.match(text, position)):
        position = begun.end()
    elif error.msg.startswith("Invalid \\u"):
        position -= 1
    elif error.msg.startswith("Unterminated"):
        position = len(text)
    return _TEXTS.get(error.msg, f"{error.msg}."), position


_BROKEN_NUMBER = re.compile(r"[0-9](\.|[eE][+-]?)(?![0-9])")
_BEGUN_VALUE = re.compile(r"-|t(ru?)?|f(a(ls?)?)?|n(ul?)?")
_CONTAINER = {True: "array element", False: "object member"}


def _innermost(text: str) -> str:
    """The bracket that is still open at the end of `text`, which has no strings."""
    depth = 0
    for character in reversed(text):
        if character in "]}":
            depth += 1
        elif character in "[{":
            if depth == 0:
                return character
            depth -= 1
    return "{"


def _unparsable(reason: str, position: int) -> RequestError:
    return RequestError(ErrorCode.INTERNAL, f"failed to parse the request JSON buffer: {reason} at {position}")


def too_deep() -> RequestError:
    """The refusal of deeply nested arrays."""
    return RequestError(ErrorCode.INVALID_ARG, f"JSON nesting depth exceeds maximum allowed limit ({MAX_NESTING})")


def dump(document: Any) -> bytes:
    """A document in compact form; it may hold `orjson.Fragment`s, which `dump_leniently` makes where it must."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def dump_leniently(values: Any) -> bytes:
    """What orjson cannot write: NaN and Infinity as bare tokens, lone surrogates as the bytes they came from."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


# ------------------------------------------------------------------------------------------- members by type


def is_object(value: Any) -> TypeGuard[Members]:
    """True for a JSON object."""
    return type(value) is dict


def is_unsigned(value: Any) -> TypeGuard[int]:
    """True for an integer literal that fits 64 bits without a sign."""
    return type(value) is int and 0 <= value <= MAX_UNSIGNED


def member(members: Any, name: str, shown: str | None = None) -> Any:
    """A required member; an error names it as `shown`. Raises RequestError."""
    try:
        return members[name]
    except (KeyError, TypeError):
        reason = f"attempt to access non-existing object member '{name}'"
        raise unreadable(name if shown is None else shown, reason) from None


def string(value: Any, name: str = "") -> str:
    """`value` as a string that is UTF-8. Raises RequestError naming the member."""
    if type(value) is not str:
        raise unreadable(name, "attempt to access JSON non-string as string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise unreadable(name, "the string is not valid UTF-8") from None
    return value


def boolean(value: Any, name: str = "") -> bool:
    """`value` as a boolean. Raises RequestError naming the member."""
    if type(value) is not bool:
        raise unreadable(name, "attempt to access JSON non-boolean as boolean")
    return value


def unsigned(value: Any, name: str = "") -> int:
    """`value` as an unsigned integer of 64 bits. Raises RequestError naming the member."""
    if not is_unsigned(value):
        raise unreadable(name, "attempt to access JSON non-unsigned-integer as unsigned-integer")
    return value


def array(value: Any, name: str = "") -> list[Any]:
    """`value` as an array. Raises RequestError naming the member."""
    if type(value) is not list:
        raise unreadable(name, "attempt to access JSON non-array as array")
    return value


def unreadable(name: str, reason: str) -> RequestError:
    """The error of a member that is missing or has the wrong type; `name` is `""` where Triton names none."""
    return RequestError(ErrorCode.INTERNAL, f"Unable to parse '{name}': {reason}" if name else reason)

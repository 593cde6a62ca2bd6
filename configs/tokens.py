"""The words of protobuf text: names, numbers, strings and marks, each with its place, and what they stand for."""

import re
from bisect import bisect_right
from typing import NamedTuple

from configs.errors import ConfigError
from configs.tree import Position

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>(?:0[xX][0-9a-fA-F]+ | (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?))
    | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
    | (?P<mark>[{}\[\]<>:,;-])""",
    re.VERBOSE,
)
_REST_OF_WORD = re.compile(r"[\w.]+")
_INTEGERS = (
    (re.compile(r"0[xX][0-9a-fA-F]+"), 16),
    (re.compile(r"0[0-7]+"), 8),
    (re.compile(r"0|[1-9][0-9]*"), 10),
)
_LONGEST_INTEGER = 100
_NOT_A_FLOAT = re.compile(r"0[0-9]+|0[xX].*")
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
    b"\\": b"\\", b"'": b"'", b'"': b'"', b"?": b"?",
}  # fmt: skip


class Token(NamedTuple):
    """A word of the language; for messages, `str` of it is what an error says it got."""

    kind: str  # name, number, string, mark, end
    text: str
    offset: int  # in the text

    def __str__(self) -> str:
        if self.kind == "end":
            return "the end of the file"
        shown = self.text if len(self.text) <= 40 else self.text[:40] + "..."
        return shown if self.kind == "string" else f"'{shown}'"


class Tokens:
    """The text cut into tokens, one ahead of the parser."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text.removeprefix("\ufeff")
        self._file = file
        self._lines = [0, *(match.end() for match in re.finditer("\n", self._text))]
        self.next = self._read(0)

    def take(self) -> Token:
        """The next token; the end is never used up."""
        token = self.next
        if token.kind != "end":
            self.next = self._read(token.offset + len(token.text))
        return token

    def take_if(self, *marks: str) -> bool:
        """Take the next token if it is one of these marks."""
        if self.next.kind == "mark" and self.next.text in marks:
            self.take()
            return True
        return False

    def position(self, offset: int) -> Position:
        """The line and column of an offset."""
        line = bisect_right(self._lines, offset)
        return Position(self._file, line, offset - self._lines[line - 1] + 1)

    def error(self, what: str, offset: int) -> ConfigError:
        """The error that says `what` is wrong there; for the caller to raise."""
        return ConfigError(f"{self.position(offset)}: {what}")

    def _read(self, offset: int) -> Token:
        match = _TOKEN.match(self._text, offset)
        if match and match.lastgroup == "space":
            offset = match.end()
            match = _TOKEN.match(self._text, offset)
        if offset == len(self._text):
            return Token("end", "", offset)
        if match is None:
            if self._text[offset] in "\"'":
                raise self.error("this string is not closed on its line", offset)
            raise self.error(f"unexpected character {self._text[offset]!r}", offset)
        token = Token(match.lastgroup or "", match.group(), offset)
        rest = _REST_OF_WORD.match(self._text, match.end())
        if token.kind == "number" and rest:
            raise self.error(f"'{token.text}{rest.group()}' is not a number", offset)
        return token


def to_integer(token: Token) -> int | None:
    """The token as a decimal, octal (leading 0) or hexadecimal integer; None if it is none, or absurdly long."""
    if token.kind != "number" or len(token.text) > _LONGEST_INTEGER:
        return None
    for form, base in _INTEGERS:
        if form.fullmatch(token.text):
            return int(token.text, base)
    return None


def to_float(token: Token) -> float | None:
    """The token as a number with or without a fraction; None if it is none."""
    if token.kind == "name" and token.text.lower() in ("inf", "infinity", "nan"):
        return float(token.text)
    if token.kind != "number":
        return None
    value = to_integer(token)
    if value is not None:
        return float(value)
    return None if _NOT_A_FLOAT.fullmatch(token.text) else float(token.text.rstrip("fF"))


def to_bytes(token: Token) -> bytes:
    """The bytes that a string token stands for. Raises ValueError for an escape that is none."""
    return _ESCAPE.sub(_escaped, token.text[1:-1].encode())


def _escaped(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, simple = match.groups()
    if octal is not None and int(octal, 8) < 256:
        return bytes([int(octal, 8)])
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    code = short or long
    if code is not None and int(code, 16) <= 0x10FFFF and not 0xD800 <= int(code, 16) <= 0xDFFF:
        return chr(int(code, 16)).encode()
    if simple in _SIMPLE_ESCAPES:
        return _SIMPLE_ESCAPES[simple]
    raise ValueError(f"unknown escape '{match.group().decode(errors='replace')}'")

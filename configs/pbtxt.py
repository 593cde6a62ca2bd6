"""Read protobuf text (config.pbtxt, server.pbtxt) by its schema, with errors that say where and what was expected.

protobuf's own parser knows neither which fields were set nor where they stand, and stops with messages that
name neither the file nor a way out; that is why this one exists. It accepts the same language.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from configs.errors import ConfigError, nearest
from configs.tokens import Token, Tokens, to_bytes, to_float, to_integer
from configs.tree import Field, Node, Position, default, enum_type, is_map, message_type

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_MISTAKES = 100

_CLOSING = {"{": "}", "<": ">", "[": "]"}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_BOOLEANS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}


def read(path: Path, schema: Descriptor) -> Node:
    """Parse a file. Raises ConfigError, also when it cannot be read."""
    name = shown(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name}: is larger than {MAX_BYTES} bytes, too large for a configuration")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ConfigError(f"{name}:{line}:{column}: is not UTF-8 text") from error
    return parse(text, schema, name)


def shown(path: Path) -> str:
    """The path as messages show it: relative where it is below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or there is no working directory any more
        return str(path)


def parse(text: str, schema: Descriptor, file: str) -> Node:
    """Parse `text` as one message of `schema`; `file` is its name in positions and errors.

    Raises ConfigError, with every mistake up to the first after which nothing could be understood.
    """
    mistakes: list[str] = []
    try:
        node = _Parser(Tokens(text, file), mistakes).message(schema, Position(file, 1, 1), "")
    except ConfigError as error:
        raise ConfigError(*mistakes, *error.messages) from None
    if mistakes:
        raise ConfigError(*mistakes)
    return node


@dataclass(frozen=True)
class _Parser:
    """Recursive descent: one method per construct; every method raises ConfigError through `tokens.error`.

    Wrong names and values are `mistakes`: they are passed over, so that what is wrong behind them is found as well.
    """

    tokens: Tokens
    mistakes: list[str]
    depth: int = 0

    def message(self, schema: Descriptor, position: Position, closing: str) -> Node:
        """The fields up to `closing` (`""`: the end of the text), which is consumed."""
        fields: dict[str, Any] = {}
        positions: dict[str, Position] = {}
        while not self._closed(position, closing):
            token = self.tokens.take()
            field = self._field_of(schema, token)
            mistake = self._misplaced(field, fields, positions) if field else _unknown(schema, token)
            if field is None or mistake:
                self._note(self.tokens.error(mistake, token.offset))
                self._pass_over_value()
                continue
            positions.setdefault(field.name, self.tokens.position(token.offset))
            if not field.is_repeated:
                fields[field.name] = self._value(field)
            elif is_map(field):
                entries = fields.setdefault(field.name, {})
                entries.update((entry.get("key"), self._map_value(entry)) for entry in self._values(field))
            else:
                fields.setdefault(field.name, []).extend(self._values(field))
            self.tokens.take_if(",", ";")
        return Node(schema, {n: Field(_frozen(v), positions[n]) for n, v in fields.items()}, position)

    def _closed(self, opened: Position, closing: str) -> bool:
        token = self.tokens.next
        if token.text == closing and token.kind in ("mark", "end"):
            self.tokens.take()
            return True
        if token.kind == "end":
            raise self.tokens.error(
                f"the file ends, but the bracket opened at line {opened.line}, column {opened.column} "
                f"is not closed: expected '{closing}'",
                token.offset,
            )
        if token.kind == "mark" and token.text in _CLOSING.values():
            where = (
                f"expected '{closing}' for the bracket opened at line {opened.line}, column {opened.column}"
                if closing
                else "no bracket is open here"
            )
            raise self.tokens.error(f"unexpected '{token.text}': {where}", token.offset)
        return False

    def _field_of(self, schema: Descriptor, token: Token) -> FieldDescriptor | None:
        if token.kind != "name":
            raise self.tokens.error(f"expected the name of a field of {schema.name}, got {token}", token.offset)
        found: FieldDescriptor | None = schema.fields_by_name.get(token.text)
        return found

    def _misplaced(self, field: FieldDescriptor, fields: dict[str, Any], positions: dict[str, Position]) -> str:
        """Why the field cannot be set (again), "" when it can."""
        if field.is_repeated:
            return ""
        if field.name in fields:
            return f"'{field.name}' is set twice, first at line {positions[field.name].line}"
        others = field.containing_oneof.fields if field.containing_oneof else ()
        for other in others:
            if other.name in fields:
                line = positions[other.name].line
                return f"'{field.name}' cannot be set together with '{other.name}' of line {line}: choose one of them"
        return ""

    def _note(self, mistake: ConfigError) -> None:
        """Raises the mistake when there have been enough of them."""
        if len(self.mistakes) >= MAX_MISTAKES - 1:
            raise mistake
        self.mistakes.extend(mistake.messages)

    def _pass_over_value(self) -> None:
        """Go on behind the value of a field that cannot be set: one word, or everything in a pair of brackets."""
        self.tokens.take_if(":")
        depth = 0
        while self.tokens.next.kind != "end":
            token = self.tokens.next
            if token.kind == "mark":
                depth += (token.text in _CLOSING) - (token.text in _CLOSING.values())
            if depth < 0:
                return  # the field had none
            self.tokens.take()
            goes_on = token.text == "-" or token.kind == self.tokens.next.kind == "string"
            if depth == 0 and not goes_on:
                break
        self.tokens.take_if(",", ";")

    def _map_value(self, entry: Node) -> Any:
        value = entry.get("value")
        if value is None:  # an entry without a value has an empty message
            value = Node(message_type(entry.descriptor.fields_by_name["value"]), {}, entry.position)
        return value

    def _values(self, field: FieldDescriptor) -> list[Any]:
        """What follows the name of a repeated field: one value, or a list in brackets."""
        self._take_colon(field)
        if self.tokens.next.text != "[":
            return [self._bare_value(field)]
        opened = self.tokens.position(self.tokens.take().offset)
        values: list[Any] = []
        if self.tokens.take_if("]"):
            return values
        while True:
            values.append(self._bare_value(field))
            if self.tokens.take_if("]"):
                return values
            if not self.tokens.take_if(","):
                raise self.tokens.error(
                    f"expected ',' or ']' in the list opened at line {opened.line}, column {opened.column}, "
                    f"got {self.tokens.next}",
                    self.tokens.next.offset,
                )

    def _value(self, field: FieldDescriptor) -> Any:
        self._take_colon(field)
        if self.tokens.next.text == "[":
            raise self.tokens.error(f"'{field.name}' takes one value, not a list", self.tokens.next.offset)
        return self._bare_value(field)

    def _take_colon(self, field: FieldDescriptor) -> None:
        if not self.tokens.take_if(":") and field.message_type is None:
            raise self.tokens.error(
                f"expected ':' after '{field.name}', got {self.tokens.next}", self.tokens.next.offset
            )

    def _bare_value(self, field: FieldDescriptor) -> Any:
        if field.message_type is not None:
            return self._nested(field)
        token = self.tokens.next
        if token.kind == "end" or token.text in ("}", "]", ">", ",", ";", ":"):
            raise self.tokens.error(f"expected {_kind(field)} for '{field.name}', got {token}", token.offset)
        try:
            return _SCALARS[field.cpp_type](self, field)
        except ConfigError as error:
            if token.kind == "mark" and token.text != "-":
                raise
            self._note(error)
            if self.tokens.next is token:
                self.tokens.take()
            return default(field)

    def _nested(self, field: FieldDescriptor) -> Node:
        token = self.tokens.take()
        if token.kind != "mark" or token.text not in ("{", "<"):
            raise self.tokens.error(f"expected '{{' to open '{field.name}', got {token}", token.offset)
        if self.depth >= MAX_DEPTH:
            raise self.tokens.error(f"messages are nested more than {MAX_DEPTH} deep", token.offset)
        inner = _Parser(self.tokens, self.mistakes, self.depth + 1)
        return inner.message(message_type(field), self.tokens.position(token.offset), _CLOSING[token.text])

    def _wrong(self, field: FieldDescriptor, token: Token) -> ConfigError:
        return self.tokens.error(f"expected {_kind(field)} for '{field.name}', got {token}", token.offset)

    def integer(self, field: FieldDescriptor) -> int:
        start = self.tokens.next
        sign = -1 if self.tokens.take_if("-") else 1
        token = self.tokens.take()
        value = to_integer(token)
        if value is None:
            raise self._wrong(field, start if sign > 0 else token)
        return self._in_range(field, sign * value, start)

    def _in_range(self, field: FieldDescriptor, value: int, token: Token) -> int:
        low, high = _INTEGERS[field.cpp_type]
        if not low <= value <= high:
            raise self.tokens.error(f"{value} is out of range for '{field.name}': {low} to {high}", token.offset)
        return value

    def floating(self, field: FieldDescriptor) -> float:
        start = self.tokens.next
        sign = -1.0 if self.tokens.take_if("-") else 1.0
        token = self.tokens.take()
        value = to_float(token)
        if value is None:
            raise self._wrong(field, start if sign > 0 else token)
        if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
            value = _single(value)
        return sign * value

    def boolean(self, field: FieldDescriptor) -> bool:
        token = self.tokens.take()
        if token.kind == "name" and token.text in _BOOLEANS:
            return _BOOLEANS[token.text]
        value = to_integer(token)
        if value not in (0, 1):
            raise self._wrong(field, token)
        return bool(value)

    def string(self, field: FieldDescriptor) -> str:
        if self.tokens.next.kind != "string":
            raise self._wrong(field, self.tokens.next)
        first = self.tokens.next
        parts = []
        try:
            while self.tokens.next.kind == "string":
                parts.append(to_bytes(self.tokens.take()))
            return b"".join(parts).decode()
        except UnicodeDecodeError:
            what = f"the escapes in '{field.name}' do not make up UTF-8 text"
        except ValueError as error:
            what = str(error)
        raise self.tokens.error(what, first.offset)

    def enum(self, field: FieldDescriptor) -> str:
        enum = enum_type(field)
        start = self.tokens.next
        sign = -1 if self.tokens.take_if("-") else 1
        token = self.tokens.take()
        number = to_integer(token)
        if number is not None and sign * number in enum.values_by_number:
            return enum.values_by_number[sign * number].name
        if token is start and token.text in enum.values_by_name:
            return token.text
        if token.kind in ("name", "number"):
            hint = nearest(token.text, enum.values_by_name.keys(), limit=20)
            raise self.tokens.error(f"unknown value '{token.text}' for '{field.name}'{hint}", start.offset)
        raise self._wrong(field, token)


_SCALARS: dict[int, Callable[[_Parser, FieldDescriptor], Any]] = {
    **dict.fromkeys(_INTEGERS, _Parser.integer),
    FieldDescriptor.CPPTYPE_FLOAT: _Parser.floating,
    FieldDescriptor.CPPTYPE_DOUBLE: _Parser.floating,
    FieldDescriptor.CPPTYPE_BOOL: _Parser.boolean,
    FieldDescriptor.CPPTYPE_STRING: _Parser.string,
    FieldDescriptor.CPPTYPE_ENUM: _Parser.enum,
}


def _unknown(schema: Descriptor, token: Token) -> str:
    return f"unknown field '{token.text}' in {schema.name}{nearest(token.text, schema.fields_by_name.keys())}"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _kind(field: FieldDescriptor) -> str:
    if field.cpp_type in _INTEGERS:
        return "an integer"
    if field.enum_type is not None:
        return "one of " + ", ".join(value.name for value in field.enum_type.values)
    return {
        FieldDescriptor.CPPTYPE_BOOL: "true or false",
        FieldDescriptor.CPPTYPE_STRING: "a string in quotes",
    }.get(field.cpp_type, "a number")


def _single(value: float) -> float:
    """The nearest number of single precision, as a `float` field holds it."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)

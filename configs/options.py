"""The machinery of settings: an option is declared once and read from flags and from server.pbtxt alike."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from configs.errors import nearest

Scalar = bool | int | float | str

_WRAPPED = textwrap.TextWrapper(96, initial_indent=" " * 8, subsequent_indent=" " * 8, break_on_hyphens=False)
_TRUE, _FALSE = ("true", "on", "1"), ("false", "off", "0")


@dataclass(frozen=True)
class Option:
    """One setting; `name` is its field in server.pbtxt and, with dashes, its flag."""

    name: str
    kind: type[Scalar]
    help: str
    group: str  # its heading in --help
    default: Any = None
    repeated: bool = False
    choices: tuple[str, ...] = ()
    unbuilt: tuple[str, ...] = ()  # choices of Triton's that are still missing
    true_is_one: bool = False
    low: float | None = None
    high: float | None = None
    form: str = ""  # how the value is written, if its kind does not say it
    aliases: tuple[str, ...] = ()  # other names with the same meaning
    in_file: bool = True
    takes_value: bool = True
    needs_text: bool = False  # its flag is not without one

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    def read(self, text: str) -> Scalar:
        """The value written after the flag. Raises ValueError."""
        if self.kind is bool:
            return _boolean(text)
        if self.kind is str:
            if not text and self.needs_text:
                raise ValueError(f"Error: empty argument for {self.flag}")
            return text
        if self.kind is int:
            if text.lower() == "true" and self.true_is_one:
                return 1
            if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
                raise ValueError(f"Invalid option value. Got {text}, which is no integer")
            return int(text)
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"Invalid option value. Got {text}, which is no number") from None

    def check(self, value: Scalar) -> None:
        """Raises ValueError when the value is of the right kind but not allowed."""
        if value in self.unbuilt:
            raise ValueError(f"'{value}' is not built yet, choose one of {', '.join(self.choices)}")
        if self.choices and value not in self.choices:
            raise ValueError(f"invalid argument for {self.flag}: '{value}' is none of {', '.join(self.choices)}")
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError("a null byte is not allowed")
            return
        below = self.low is not None and not value >= self.low
        if below and self.low == 1:
            raise ValueError(f"Error: {self.flag} must be greater than 0. Got {value}")
        if below or (self.high is not None and value > self.high):
            bounds = f"{self.low} or more" if self.high is None else f"{self.low} to {self.high}"
            raise ValueError(f"{value} is not allowed, must be {bounds}")


def flag_of(name: str) -> str:
    """How the command line spells a name."""
    return "--" + name.replace("_", "-")


def setting(group: str, default: Any, help: str, **more: Any) -> Any:
    """A field of a dataclass of settings: its default and what `Option` says beyond name and type."""
    return field(default=default, metadata={"group": group, "help": help, **more})


def declared(settings: type) -> tuple[Option, ...]:
    """The options that a dataclass declares with `setting`; a tuple is a repeatable string."""
    hints = get_type_hints(settings)
    options = []
    for one in fields(settings):
        if one.metadata:
            repeated = hints[one.name] in (tuple[Path, ...], tuple[str, ...])
            kind = str if repeated else hints[one.name]
            options.append(Option(name=one.name, kind=kind, default=one.default, repeated=repeated, **one.metadata))
    return tuple(options)


@dataclass
class Given:
    """What the command line says: the texts of each option, by name, and what was wrong."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def parse_flags(argv: Sequence[str], options: Iterable[Option]) -> Given:
    """Split a command line into options: `--flag=value` or `--flag value`."""
    known = {flag_of(name): option for option in options for name in (option.name, *option.aliases)}
    given = Given()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        flag, equals, text = word.partition("=")
        option = known.get(flag)
        if not word.startswith("--"):
            given.errors.append(f"Unexpected argument: {word}")
        elif option is None:
            given.errors.append(f'Bad option: "{flag}".{nearest(flag, known)[1:]}')
        elif not option.takes_value:
            given.texts.setdefault(option.name, []).append(text or "true")
        elif not equals and not rest:
            given.errors.append(f"{flag}: a value is missing, write {flag}=VALUE")
        else:
            given.texts.setdefault(option.name, []).append(text if equals else rest.pop(0))
    return given


def help_lines(options: Iterable[Option]) -> str:
    """The options as `--help` shows them, under the headings of their groups."""
    groups: dict[str, list[str]] = {}
    for option in options:
        lines = groups.setdefault(option.group, [])
        lines.append(f"  {option.flag}{_form(option)}")
        lines += _WRAPPED.wrap(option.help + _default(option))
    return "\n".join(f"{title}:\n" + "\n".join(lines) + "\n" for title, lines in groups.items())


def _boolean(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(f"invalid value for bool option: {text} (true, on, 1, false, off or 0 is expected)")
    return word in _TRUE


def _form(option: Option) -> str:
    if not option.takes_value:
        return ""
    names = {bool: "BOOLEAN", int: "INTEGER", float: "NUMBER", str: "TEXT"}
    shown = option.form or "|".join(option.choices) or names[option.kind]
    return f"={shown}" + (" (repeatable)" if option.repeated else "")


def _default(option: Option) -> str:
    also = "".join(f" Also spelled {flag_of(alias)}." for alias in option.aliases)
    if option.default in (None, "", ()) or not option.takes_value:
        return also
    if isinstance(option.default, bool):
        return f" Default: {str(option.default).lower()}."
    return f" Default: {option.default:{'g' if option.kind is float else ''}}."

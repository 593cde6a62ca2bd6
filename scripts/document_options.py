"""Writes the tables of the server's options into docs/configuration.md, from the declarations that the server reads.

Run it after a change of `configs/settings.py` or `configs/foreign.py`; a test fails when the page is out of date.
"""

from collections.abc import Iterable
from pathlib import Path

from configs.foreign import FOREIGN
from configs.options import Option
from configs.settings import OPTIONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN = "<!-- begin: written by scripts/document_options.py -->\n"
END = "<!-- end: written by scripts/document_options.py -->\n"

_KINDS = {bool: "true, false", int: "integer", float: "number", str: "text"}


def tables() -> str:
    """The generated part of the page."""
    foreign = {each.option.name for each in FOREIGN}
    own = [option for option in OPTIONS if option.name not in foreign]
    parts = [_own_table(group, [o for o in own if o.group == group]) for group in dict.fromkeys(o.group for o in own)]
    parts += [
        _foreign_table("Flags of tritonserver without effect", [f.option for f in FOREIGN if not f.refused]),
        _foreign_table("Flags of tritonserver that are refused", [f.option for f in FOREIGN if f.refused]),
    ]
    return "\n".join(parts)


def with_tables(page: str) -> str:
    """The page with its generated part made anew. Raises ValueError when it has no place for that."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{begin}\n{tables()}\n{end}{after}"


def _own_table(group: str, options: Iterable[Option]) -> str:
    lines = [f"### {group}\n", "| flag | value | default | meaning |", "|---|---|---|---|"]
    for option in options:
        names = "<br>".join(f"`{name}`" for name in (option.flag, *_aliases(option)))
        where = "" if option.in_file else " (Command line only.)"
        lines.append(f"| {names} | {_value(option)} | {_default(option)} | {_cell(option.help)}{where} |")
    return "\n".join(lines) + "\n"


def _foreign_table(title: str, options: Iterable[Option]) -> str:
    rows = [f"| `{option.flag}` | {_cell(option.help)} |" for option in options]
    return "\n".join([f"### {title}\n", "| flag of tritonserver | why |", "|---|---|", *rows]) + "\n"


def _aliases(option: Option) -> list[str]:
    return [f"--{alias.replace('_', '-')}" for alias in option.aliases]


def _value(option: Option) -> str:
    if not option.takes_value:
        return "none, or true, false" if option.in_file else "none"
    text = f"`{option.form}`" if option.form else ", ".join(option.choices) or _KINDS[option.kind]
    return text + (", repeatable" if option.repeated else "")


def _default(option: Option) -> str:
    if option.default in (None, "", ()):
        return ""
    if isinstance(option.default, bool):
        return f"`{str(option.default).lower()}`"
    return f"`{option.default:g}`" if option.kind is float else f"`{option.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))

"""`python -m broker check` and `python -m broker models`: what a server would say of its configuration, without one.

Both take a model repository or a server.pbtxt, and any of the server's flags. The exit status is 0 when everything
would be served, 1 when something is wrong, 2 when there is nothing to look at.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from broker import tables
from broker.gpus import visible_gpus
from broker.remote.errors import RemoteError
from broker.remote.mirror import Mirror
from broker.survey import Finding, survey
from configs import server as settings
from configs.errors import ConfigError
from configs.layout import is_model_file
from configs.server import ServerConfig
from configs.settings import OPTIONS

USAGE = """usage: python -m broker {check,models} [REPOSITORY | SERVER.PBTXT] [--json] [--flag=value ...]

check   lists everything that is wrong: FILE:LINE:COLUMN, what, and what was meant
models  lists what would be served, and why not

--json prints the same for programs. The flags are those of the server (python -m broker --help).
The exit status is 0 when everything would be served, 1 when not, 2 when there is nothing to look at.
"""
UNUSABLE = 2
_PLACE = re.compile(r"(?P<file>[^\s:][^:]*):(?P<line>[0-9]+):(?P<column>[0-9]+): (?P<message>.*)", re.DOTALL)
_COMPLETE = {option.flag for option in OPTIONS if not option.takes_value}
_FRAMEWORK_SECONDS = 60.0


class Problem(NamedTuple):
    """One thing that is wrong. `line` 0: the file (or directory) as a whole; `file` "": the command line."""

    severity: str  # error, warning
    model: str  # "": the server's own configuration
    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.severity}: {self.message}"


def main(arguments: Sequence[str], lacking: Callable[[], Mapping[str, str]] | None = None) -> int:
    """Carry out `check ...` or `models ...`; the exit status. `lacking` says which backends lack their package."""
    command, *rest = arguments
    if "--help" in rest or "-h" in rest:
        sys.stdout.write(USAGE)
        return 0
    is_json = "--json" in rest
    try:
        config = settings.load(_flags([word for word in rest if word != "--json"]))
        missed = _fetch(config)
        findings = survey(config, visible_gpus(), (lacking or ask_workers)())
    except (ConfigError, RemoteError, OSError) as error:
        lines = error.messages if isinstance(error, ConfigError) else (str(error),)
        problems = [_problem("error", "", "", line) for line in lines]
        is_text = all(problem.line for problem in problems)  # of a file that there is
        _print(_as_json([], problems) if is_json else _lines(problems))
        return 1 if is_text else UNUSABLE
    problems = _problems(config, findings) + missed
    if is_json:
        _print(_as_json(findings, problems))
    elif command == "models":
        _print(_table(findings))
    else:
        _print(_lines(problems) + _summary(findings, problems))
    return int(any(problem.severity == "error" for problem in problems))


def _flags(words: Sequence[str]) -> list[str]:
    """The server's command line. Raises ConfigError for a path that is neither a repository nor a file."""
    flags: list[str] = []
    takes_value = False
    for word in words:
        if word.startswith("--") or takes_value:
            flags.append(word)
            takes_value = not takes_value and word not in _COMPLETE and "=" not in word
        elif os.path.isdir(word) or "://" in word or is_model_file(word):
            flags.append(f"--model-repository={word}")
        elif os.path.lexists(word):
            flags.append(f"--config={word}")
        else:
            raise ConfigError(f"there is neither a directory nor a file '{word}'")
    return flags


def _fetch(config: ServerConfig) -> list[Problem]:
    """Mirror remote repositories as a server does at its start; what could not be had. Raises RemoteError, OSError."""
    missed: list[Problem] = []
    for remote in config.remotes.values():
        mirror = Mirror(remote, Path(config.repository_cache), lambda _, text: print(text, file=sys.stderr))  # noqa: T201
        try:
            failures = mirror.sync(None).failures
        except RemoteError as error:
            raise RemoteError(f"{remote}: {error}") from None
        missed += [Problem("error", model, "", 0, 0, text) for model, text in failures.items()]
    return missed


def ask_workers() -> dict[str, str]:
    """The backends that lack their package: a process of theirs says so, whose modules the broker never imports."""
    command = [sys.executable, "-P", "-m", "workers.frameworks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_FRAMEWORK_SECONDS, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _problems(config: ServerConfig, findings: Iterable[Finding]) -> list[Problem]:
    """In the order of the models; each once, though several models may have it."""
    found = [_problem("warning", "", "", warning) for warning in config.warnings]
    for finding in findings:
        found += [_problem("error", finding.model, finding.path, text) for text in finding.problems]
        found += [_problem("warning", finding.model, finding.path, text) for text in finding.warnings]
    return list(dict.fromkeys(found))


def _problem(severity: str, model: str, path: str, text: str) -> Problem:
    match = _PLACE.fullmatch(text)
    if match is None:
        return Problem(severity, model, os.path.relpath(path) if path else "", 0, 0, text)
    return Problem(severity, model, match["file"], int(match["line"]), int(match["column"]), match["message"])


def _lines(problems: Iterable[Problem]) -> str:
    return "".join(f"{problem}\n" for problem in problems)


def _summary(findings: Sequence[Finding], problems: Sequence[Problem]) -> str:
    errors = sum(1 for problem in problems if problem.severity == "error")
    parts = [_count(len(findings), "model"), _count(errors, "error"), _count(len(problems) - errors, "warning")]
    return ", ".join(parts) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _status(finding: Finding) -> str:
    if finding.problems:
        return "UNAVAILABLE: " + "\n".join(finding.problems)
    return "would be served" if finding.is_wanted else "would be loaded on request (mode explicit)"


def _table(findings: Iterable[Finding]) -> str:
    rows = []
    for finding in findings:
        described = finding.description
        kind = (described.backend or described.platform) if described is not None else "-"
        versions = ", ".join(map(str, described.versions)) if described is not None else "-"
        instances = str(len(described.instances)) if described is not None else "-"
        rows.append((finding.model, versions, kind, instances, _status(finding)))
    return tables.table(("Model", "Versions", "Backend", "Instances", "Status"), rows)


def _as_json(findings: Iterable[Finding], problems: Iterable[Problem]) -> str:
    models: list[dict[str, Any]] = [
        {
            "name": finding.model,
            "versions": list(finding.description.versions) if finding.description is not None else [],
            "backend": finding.description.backend if finding.description is not None else "",
            "platform": finding.description.platform if finding.description is not None else "",
            "instances": len(finding.description.instances) if finding.description is not None else 0,
            "at_start": finding.is_wanted,
            "served": not finding.problems,
            "reasons": finding.problems,
        }
        for finding in findings
    ]
    return json.dumps({"models": models, "problems": [problem._asdict() for problem in problems]}, indent=2) + "\n"


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

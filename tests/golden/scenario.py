"""What a golden case is: steps that are sent to a server one after the other, and the form in which they are kept.

Bytes are kept as text with one character per byte (Latin-1): exact, and readable where they are text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

RECORDED = Path(__file__).parent / "recorded"

Answer: TypeAlias = Any
"""What came back for a step, in JSON's types; see `exchange` for its form."""


class Http(NamedTuple):
    """Bytes on one connection of the `http` or `metrics` port; after each part one answer is awaited.

    With `is_background` the next step starts while this one still waits for its answers.
    """

    parts: tuple[bytes, ...]
    is_background: bool = False
    port: str = "http"


class Grpc(NamedTuple):
    """One call: `rpc` is `Service/Method`, the requests are serialized messages (several only for a stream).

    `is_grouped`: the responses of a stream are put together by request, where their order is nobody's promise.
    """

    rpc: str
    requests: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    is_background: bool = False
    is_grouped: bool = False


class Memory(NamedTuple):
    """A POSIX shared memory object: `create` it with `data`, `read` it (the answer), or `remove` it."""

    action: str
    key: str
    data: bytes = b""


class Pause(NamedTuple):
    """Seconds in which the server comes to rest: where an answer depends on what has happened before."""

    seconds: float


class Settle(NamedTuple):
    """Waits until no model is being loaded or unloaded."""


Step: TypeAlias = Http | Grpc | Memory | Pause | Settle


class Scenario(NamedTuple):
    """Steps that belong together. They leave the server as they found it, so scenarios run in any order."""

    name: str
    steps: tuple[Step, ...]


class Recorded(NamedTuple):
    """A scenario with the answer to each of its steps."""

    scenario: Scenario
    answers: tuple[Answer, ...]

    def requests(self) -> Iterator[tuple[str, int]]:
        """Id (within the topic) and index of each step that is a request."""
        indexes = [index for index, step in enumerate(self.scenario.steps) if isinstance(step, Http | Grpc | Memory)]
        indexes = [
            i for i in indexes if not isinstance(step := self.scenario.steps[i], Memory) or step.action == "read"
        ]
        for number, index in enumerate(indexes, 1):
            yield self.scenario.name if len(indexes) == 1 else f"{self.scenario.name}.{number}", index


def load(file: Path) -> list[Recorded]:
    """The scenarios that one file of `recorded` holds."""
    entries = json.loads(file.read_text())
    return [
        Recorded(
            Scenario(entry["name"], tuple(_step(form) for form in entry["steps"])),
            tuple(form.get("answer") for form in entry["steps"]),
        )
        for entry in entries
    ]


def save(file: Path, recorded: list[Recorded]) -> None:
    """The mirror of `load`."""
    entries = [
        {
            "name": each.scenario.name,
            "steps": [
                _form(step) | ({} if answer is None else {"answer": answer})
                for step, answer in zip(each.scenario.steps, each.answers, strict=True)
            ],
        }
        for each in recorded
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries, indent=1, ensure_ascii=True) + "\n")


def _form(step: Step) -> dict[str, Any]:
    match step:
        case Http(parts, is_background, port):
            form: dict[str, Any] = {"http": [_text(part) for part in parts]}
            form |= {} if port == "http" else {"port": port}
        case Grpc(rpc, requests, metadata, is_background, is_grouped):
            form = {"rpc": rpc, "requests": [_text(request) for request in requests]}
            form |= {"metadata": [list(pair) for pair in metadata]} if metadata else {}
            form |= {"grouped": True} if is_grouped else {}
        case Memory(action, key, data):
            return {"memory": action, "key": key} | ({"data": _text(data)} if data else {})
        case Pause(seconds):
            return {"pause": seconds}
        case Settle():
            return {"settle": True}
    return form | ({"background": True} if is_background else {})


def _step(form: Mapping[str, Any]) -> Step:
    is_background = form.get("background", False)
    if "http" in form:
        return Http(tuple(map(_bytes, form["http"])), is_background, form.get("port", "http"))
    if "rpc" in form:
        metadata = tuple((name, value) for name, value in form.get("metadata", ()))
        requests = tuple(map(_bytes, form["requests"]))
        return Grpc(form["rpc"], requests, metadata, is_background, form.get("grouped", False))
    if "memory" in form:
        return Memory(form["memory"], form["key"], _bytes(form.get("data", "")))
    return Settle() if "settle" in form else Pause(form["pause"])


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")

"""Takes out of an answer what no two runs have in common: times, paths, the version of the server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.golden.scenario import Answer

_KEY = re.compile(r"golden-[0-9a-f]{8}-")
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? \S+$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(?:[^"\\]|\\.)*"')
_TIMES = ("ns", "last_inference")


def normalised(answer: Answer, directory: Path) -> Answer:
    """The answer of a server that ran in `directory`."""
    if isinstance(answer, list):
        return [normalised(each, directory) for each in answer]
    if not isinstance(answer, dict):
        return answer
    form = _mapped(answer, lambda text: _KEY.sub("golden-00000000-", text.replace(str(directory), "<directory>")))
    for document in (form.get("json"), *form.get("messages", ())):
        _forget(document)
    if "messages" in form:  # a protobuf's map has no order, nor has its JSON form
        form["messages"] = json.loads(json.dumps(form["messages"], sort_keys=True))
    if form.get("text", "").startswith("# HELP nv_"):
        form["metrics"] = _families(form.pop("text"))
    return form


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    return value


def _forget(document: Any) -> None:
    if not isinstance(document, dict):
        return
    if "extensions" in document:
        document["version"] = "<version>"
    for model in document.get("model_stats", ()):
        model["memory_usage"] = []
        _forget_times(model)


def _forget_times(value: Any) -> None:
    if isinstance(value, list):
        for each in value:
            _forget_times(each)
    if isinstance(value, dict):
        for name in _TIMES:
            value.pop(name, None)
        for each in value.values():
            _forget_times(each)


def _families(page: str) -> list[str]:
    """Name and labels of every metric on a page of metrics."""
    found = {
        f"{name} {','.join(sorted(_LABEL.findall(labels or '')))}".rstrip() for name, labels in _SAMPLE.findall(page)
    }
    return sorted(found)

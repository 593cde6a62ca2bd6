"""What the documentation mentions exists: pages, sections, files, flags, metrics, make targets, extras, answers."""

import contextlib
import http.client
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from broker import cache_metrics, metrics, residency_metrics
from broker.core import Core, Frontends
from broker.response_cache import ResponseCache
from configs.metrics_config import MetricsConfig
from configs.options import flag_of
from configs.server import ServerConfig
from configs.settings import OPTIONS
from tests.docs.blocks import PAGES, ROOT
from tests.support.server import Server

OTHERS_FLAGS = {"--shm-size", "--ipc", "--gpus", "--build-arg", "--user", "--extra-index-url", "--data-binary"}
"""Flags of other programs that the pages mention."""
TRITONS_METRICS = {
    "nv_pinned_memory_pool_total_bytes",
    "nv_pinned_memory_pool_used_bytes",
    "nv_trt_llm_kv_cache_block_metrics",
}
"""Metrics that the pages mention because they are missing, or a model's own."""
TOP = ("ARCHITECTURE.md", "broker", "workers", "frontends", "shm", "configs", "tests", "bench", "docs", "examples")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    dead = [target for target in _links(page.read_text()) if not _exists(page, target)]
    assert not dead


@pages
def test_paths_exist(page: Path) -> None:
    mentioned = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", page.read_text())
    ours = [path for path in mentioned if path.split("/")[0] in TOP and Path(path).stem != "x"]  # x is any name
    missing = [path for path in ours if not (ROOT / path).exists()]
    assert not missing


@pages
def test_flags_exist(page: Path) -> None:
    known = {flag_of(name) for option in OPTIONS for name in (option.name, *option.aliases)} | OTHERS_FLAGS
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", page.read_text()))
    assert not mentioned - known - _script_flags()


@pages
def test_metrics_exist(page: Path) -> None:
    mentioned = set(re.findall(r"\b(?:nv|tidepool)_[a-z_]+[a-z]", page.read_text()))
    assert not mentioned - _families() - TRITONS_METRICS


def test_metrics_that_are_missing_are_missing() -> None:
    assert not TRITONS_METRICS & _families()


def test_every_metric_is_described() -> None:
    assert all(f"`{name}`" in (ROOT / "docs" / "operations.md").read_text() for name in _families())


@pages
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = set(re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", page.read_text()))
    assert not mentioned - targets


@pages
def test_extras_exist(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    mentioned = {e for found in re.findall(r"(?:\.|tidepool)\[([a-z,]+)\]", page.read_text()) for e in found.split(",")}
    assert not mentioned - project["optional-dependencies"].keys()


# ----------------------------------------------------------------------------------------------- answers

COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text()
HTTP_ANSWERS = re.findall(r"`(GET|POST) (/\S*)` (\d{3})", COMPATIBILITY)
GRPC_ANSWERS = re.findall(r"`([A-Z]\w+)` ([A-Z_]{2,})\b", COMPATIBILITY)


def test_there_are_answers_to_check() -> None:
    assert len(HTTP_ANSWERS) > 5
    assert len(GRPC_ANSWERS) > 5


@pytest.mark.parametrize(("method", "path", "status"), HTTP_ANSWERS)
def test_http_answers(method: str, path: str, status: str, server: Server) -> None:
    connection = http.client.HTTPConnection(server.address("http"), timeout=10)
    connection.request(method, path, body=b"{}" if method == "POST" else None)
    assert connection.getresponse().status == int(status), "docs/compatibility.md is out of date"
    connection.close()


@pytest.mark.parametrize(("name", "status"), GRPC_ANSWERS)
def test_grpc_answers(name: str, status: str, server: Server) -> None:
    with grpc.insecure_channel(server.address("grpc")) as channel:
        call = channel.stream_stream(f"/inference.GRPCInferenceService/{name}", None, None)
        answer = call(iter([b""]), timeout=10)
        with contextlib.suppress(grpc.RpcError):
            list(answer)
    assert answer.code().name == status, "docs/compatibility.md is out of date"


# ----------------------------------------------------------------------------------------------- helpers


def _links(text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            yield target


def _exists(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (page.parent / name) if name else page
    return path.exists() and (not anchor or anchor in _anchors(path))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _families() -> set[str]:
    families = metrics.families({}, {}, {}, MetricsConfig(), 0.0) + cache_metrics.of_the_cache(ResponseCache(1, []))
    families += residency_metrics.families({}, (), Core(ServerConfig(), Frontends({}, {}), 0.0).on_demand)
    return {family["name"] for family in families}


def _script_flags() -> set[str]:
    """Flags of the scripts of this repository."""
    patterns = ("bench/*.py", "examples/*.py", "workers/environments/__main__.py", "broker/run.py")
    scripts = [script for pattern in patterns for script in ROOT.glob(pattern)]
    return {flag for script in scripts for flag in re.findall(r'"(--[a-z-]+)"', script.read_text())}

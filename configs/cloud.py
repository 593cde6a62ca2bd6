"""Settings of the endpoints for cloud platforms: what these say in the environment, and what cannot be."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from configs.settings import ServerConfig

_VERTEX_ROUTES = ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE")


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Settings that stand where neither a flag nor the file gives them. Raises ValueError."""
    found: dict[str, Any] = {}
    if environ.get("AIP_MODE") == "PREDICTION":
        found |= {"allow_vertex_ai": True, "allow_http": False, "allow_grpc": False}
    for name, setting in (("AIP_HTTP_PORT", "vertex_ai_port"), ("SAGEMAKER_BIND_TO_PORT", "sagemaker_port")):
        port = environ.get(name, "")
        if port:
            if not port.isdecimal() or int(port) > 65535:
                raise ValueError(f"{name} is '{port}', which is no port")
            found[setting] = int(port)
    if environ.get("SAGEMAKER_SAFE_PORT_RANGE"):
        found["sagemaker_safe_port_range"] = environ["SAGEMAKER_SAFE_PORT_RANGE"]
    return found


def problems(config: ServerConfig, environ: Mapping[str, str]) -> Iterator[str]:
    """What the endpoints lack, and which ports SageMaker does not allow."""
    if config.allow_vertex_ai:
        yield from (f"{name} is not defined for Vertex AI endpoint" for name in _VERTEX_ROUTES if not environ.get(name))
    text = config.sagemaker_safe_port_range
    if not text:
        return
    match = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text)
    if match is None:
        yield f"sagemaker_safe_port_range: '{text}': write FIRST-LAST"
        return
    first, last = int(match[1]), int(match[2])
    for kind, port in (("HTTP", config.http_port), ("GRPC", config.grpc_port), ("metrics", config.metrics_port)):
        if getattr(config, f"allow_{kind.lower()}") and not first <= port <= last:
            yield f"The server cannot listen to {kind} requests at port {port}, allowed port range is [{first}, {last}]"

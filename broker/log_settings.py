"""The log settings that clients can read and change (Triton's logging extension), and the access log's line. Pure."""

import json
from typing import Any

from broker.messages import ErrorCode, Infer
from broker.validation import Rejected
from configs.server import ServerConfig

FORMATS = ("default", "ISO8601", "json")


class LogSettings:
    """What is logged, and in which form."""

    def __init__(self, config: ServerConfig) -> None:
        """The settings of the start."""
        self.values: dict[str, Any] = {
            "log_file": config.log_file,
            "log_info": config.log_info,
            "log_warning": config.log_warning,
            "log_error": config.log_error,
            "log_verbose_level": config.log_verbose,
            "log_format": config.log_format,
        }

    def update(self, settings: dict[str, Any]) -> bool:
        """Change settings, None leaves one as it is; True when something was given. Raises Rejected."""
        given = {name: value for name, value in settings.items() if value is not None and name in self.values}
        if "log_file" in given:
            text = "log file location can not be updated through network protocol"
            raise Rejected(text, ErrorCode.UNSUPPORTED)
        if given.get("log_format", "default") not in FORMATS:
            raise Rejected(f"invalid argument for log_format, got: {given['log_format']}")
        self.values.update(given)
        return bool(given)

    @property
    def levels(self) -> frozenset[str]:
        """The levels of `IWEV` that are written."""
        names = {"I": "log_info", "W": "log_warning", "E": "log_error", "V": "log_verbose_level"}
        return frozenset(level for level, name in names.items() if self.values[name])


def access_line(infer: Infer, version: int, batch: int, code: int, now: float) -> str:
    """What the access log says of one request; `batch` 0: it was refused. Names are quoted as in JSON."""
    total = max(0.0, now - infer.received) * 1e6
    return (
        f"infer id={json.dumps(infer.request_id)} model={json.dumps(infer.model)} version={version} "
        f"batch={batch} code={ErrorCode(code).name} total_us={total:.0f}"
    )

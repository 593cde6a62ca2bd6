"""The server's settings: read once from the command line and server.pbtxt, then frozen."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs import backend_settings, pbtxt
from configs.backend_settings import BackendSettings
from configs.errors import ConfigError
from configs.foreign import FOREIGN
from configs.options import Given, Option, declared, help_lines, parse_flags, setting
from configs.proto.schema import message
from configs.tree import Node, as_json

BACKENDS = ("identity", "onnxruntime", "python", "pytorch")

_LARGE = 2**31 - 1
_PORT = {"low": 0, "high": 65535}
_HTTP, _GRPC, _METRICS = "HTTP", "gRPC", "Metrics"


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Every setting of the server, in the units and with the defaults that the option's help says."""

    id: str = setting("triton", "Name of the server in its metadata.")
    exit_on_error: bool = setting(True, "Exit when a model fails to load at the start.")
    strict_readiness: bool = setting(
        True, "The server is ready only when all its models are; else as soon as it answers."
    )
    exit_timeout_secs: int = setting(30, "Seconds that a shutdown waits for requests to finish.", low=0, high=_LARGE)

    model_repository: tuple[Path, ...] = setting(
        (),
        "Directory with one directory per model. In the file it is relative to the file. Default: "
        "'model_repository', then 'models', beside the file.",
        form="PATH",
    )
    model_control_mode: str = setting(
        "none",
        "none: models load at the start. poll: the repository is also read again every repository_poll_secs.",
        choices=("none", "poll"),
    )
    repository_poll_secs: int = setting(15, "Seconds between two reads in mode poll.", low=1, high=_LARGE)
    model_config_name: str = setting(
        "", "Read MODEL/configs/NAME.pbtxt instead of MODEL/config.pbtxt where it exists.", form="NAME"
    )
    disable_auto_complete_config: bool = setting(
        False, "Every model needs a complete configuration; nothing is inferred.", takes_value=False
    )
    min_supported_compute_capability: float = setting(
        6.0, "GPUs of a lower CUDA compute capability are not used.", low=0
    )

    log_verbose: int = setting(0, "Level of verbose log lines, 0 for none.", low=0, high=_LARGE)
    log_info: bool = setting(True, "Write log lines of level info.")
    log_warning: bool = setting(True, "Write log lines of level warning.")
    log_error: bool = setting(True, "Write log lines of level error.")

    allow_http: bool = setting(True, "Serve HTTP.")
    http_address: str = setting("0.0.0.0", "Address to serve HTTP on.", form="ADDRESS")
    http_port: int = setting(8000, "Port to serve HTTP on; 0 takes a free one.", form="PORT", **_PORT)
    reuse_http_port: bool = setting(False, "Share the HTTP port with other servers (SO_REUSEPORT).")
    http_max_input_size: int = setting(
        67108864, "Largest body of an HTTP request, in bytes, once it is decompressed.", low=1, high=2**63 - 1
    )
    http_frontends: int = setting(0, "Number of HTTP frontend processes; 0 chooses.", low=0, high=256)

    allow_grpc: bool = setting(True, "Serve gRPC.")
    grpc_address: str = setting("0.0.0.0", "Address to serve gRPC on.", form="ADDRESS")
    grpc_port: int = setting(8001, "Port to serve gRPC on; 0 takes a free one.", form="PORT", **_PORT)
    reuse_grpc_port: bool = setting(False, "Share the gRPC port with other servers (SO_REUSEPORT).")
    grpc_infer_response_compression_level: str = setting(
        "none", "Compression of gRPC inference responses.", choices=("none", "low", "medium", "high")
    )
    grpc_keepalive_time: int = setting(7200000, "Milliseconds between keepalive pings.", low=1, high=_LARGE)
    grpc_keepalive_timeout: int = setting(
        20000, "Milliseconds to wait for the answer to a keepalive ping.", low=1, high=_LARGE
    )
    grpc_keepalive_permit_without_calls: bool = setting(False, "Send keepalive pings also without calls.")
    grpc_http2_max_pings_without_data: int = setting(
        2, "Pings that may be sent when there is nothing else to send; 0: no limit.", low=0, high=_LARGE
    )
    grpc_http2_min_recv_ping_interval_without_data: int = setting(
        300000, "Milliseconds that a client without calls has to leave between pings.", low=0, high=_LARGE
    )
    grpc_http2_max_ping_strikes: int = setting(
        2, "Pings in excess before a connection is closed; 0: no limit.", low=0, high=_LARGE
    )
    grpc_max_connection_age: int = setting(0, "Milliseconds that a connection lives; 0: no limit.", low=0, high=_LARGE)
    grpc_max_connection_age_grace: int = setting(
        0, "Milliseconds that calls on an expired connection may still take; 0: no limit.", low=0, high=_LARGE
    )
    grpc_frontends: int = setting(0, "Number of gRPC frontend processes; 0 chooses.", low=0, high=256)

    allow_metrics: bool = setting(True, "Serve metrics for Prometheus.")
    allow_gpu_metrics: bool = setting(True, "Include metrics of the GPUs.")
    allow_cpu_metrics: bool = setting(True, "Include metrics of the CPU and memory.")
    metrics_address: str = setting("", "Address to serve metrics on. Default: the HTTP address.", form="ADDRESS")
    metrics_port: int = setting(8002, "Port to serve metrics on; 0 takes a free one.", form="PORT", **_PORT)
    metrics_interval_ms: float = setting(
        2000, "Milliseconds between two samples of GPU, CPU and memory metrics.", low=1
    )

    config_path: Path | None = None
    backend_config: BackendSettings = field(default_factory=dict)
    entries: Mapping[str, Node] = field(default_factory=dict)  # model_config_list by model name
    in_file: Mapping[str, Any] = field(default_factory=dict)  # the other fields as they stand in server.pbtxt
    warnings: tuple[str, ...] = ()

    def shm(self, backend: str) -> tuple[int, int, int]:
        """(default, growth, max) bytes of a backend's arenas; max 0: no limit of its own."""
        return backend_settings.shm_sizes(self.backend_config, backend)


SETTINGS = declared(ServerConfig)
_CONFIG = Option(
    "config", str, "The server's configuration in protobuf text (server.pbtxt).", form="FILE", in_file=False
)
_BACKEND_CONFIG = Option(
    "backend_config",
    str,
    "A setting of a backend, or of all. shm-default-byte-size (also shm-default-size), shm-growth-byte-size "
    "and shm-max-byte-size are the initial size, the growth and the limit (0: none) of each shared memory arena "
    "in bytes; default-max-batch-size is what auto-completion assumes for models that can batch.",
    repeated=True,
    form="[BACKEND,]KEY=VALUE",
)
_MODEL_STORE = Option("model_store", str, "Older name of --model-repository.", repeated=True, form="PATH")
_STRICT = Option("strict_model_config", bool, "Older name of --disable-auto-complete-config.")
_HELP = Option("help", bool, "Print this and exit.", in_file=False, takes_value=False)
_VERSION = Option("version", bool, "Print the version and exit.", in_file=False, takes_value=False)
SPECIAL = (_CONFIG, _BACKEND_CONFIG, _MODEL_STORE, _STRICT, _HELP, _VERSION)
OPTIONS = (*SETTINGS, *SPECIAL, *(foreign.option for foreign in FOREIGN))


def load(argv: Sequence[str]) -> ServerConfig:
    """The settings from a command line (without the program's name) and the file that it names.

    A flag wins over the file, the file over the default. `--help` and `--version` print and exit with status 0.
    Raises ConfigError with all problems that one pass can find.
    """
    given = parse_flags(argv, OPTIONS)
    if "help" in given.texts:
        sys.stdout.write(help_text())
        raise SystemExit(0)
    if "version" in given.texts:
        sys.stdout.write(f"tidepool {version('tidepool')}\n")
        raise SystemExit(0)
    path = Path(given.texts["config"][-1]).absolute() if "config" in given.texts else None
    return _Load(given, path, _read(path) if path else None).result()


def reload_entries(config: ServerConfig) -> tuple[Mapping[str, Node], tuple[str, ...]]:
    """Read server.pbtxt again: its model_config_list by name, and the names of other fields that differ now.

    Those need a restart. Raises ConfigError when the file cannot be used; nothing has changed then.
    """
    if config.config_path is None:
        return config.entries, ()
    file = _read(config.config_path)
    errors: list[str] = []
    entries = _entries(file, errors)
    if errors:
        raise ConfigError(*errors)
    now = _other_fields(file)
    names = sorted(now.keys() | config.in_file.keys())
    return entries, tuple(name for name in names if now.get(name) != config.in_file.get(name))


def help_text() -> str:
    """What `--help` prints."""
    by_name = {option.name: option for option in SETTINGS}

    def named(*prefixes: str) -> list[Option]:
        return [by_name.pop(name) for name in list(by_name) if name.startswith(prefixes)]

    groups = {
        "HTTP": named("allow_http", "http_", "reuse_http"),
        "gRPC": named("allow_grpc", "grpc_", "reuse_grpc"),
        "Metrics": named("allow_", "metrics_"),
        "Logging": named("log_"),
        "Model repository": [*named("model_", "repository_", "disable_", "min_"), _MODEL_STORE, _STRICT],
        "Server": [_CONFIG, *named(""), _BACKEND_CONFIG, _HELP, _VERSION],
    }
    order = ("Server", "Model repository", "HTTP", "gRPC", "Metrics", "Logging")
    return (
        "usage: python -m broker [--config server.pbtxt] [--flag=value ...]\n\n"
        "A field of server.pbtxt is a flag with underscores for dashes; a flag wins over the file.\n\n"
        + help_lines(
            {
                **{title: groups[title] for title in order},
                "Flags of tritonserver without effect here": [f.option for f in FOREIGN if not f.refused],
                "Flags of tritonserver that are refused": [f.option for f in FOREIGN if f.refused],
            }
        )
    )


def _read(path: Path) -> Node:
    return pbtxt.read(path, message("tidepool.ServerConfig"))


def _other_fields(file: Node) -> dict[str, Any]:
    members = as_json(file)
    return {name: members[name] for name in file.fields if name != "model_config_list"}


def _entries(file: Node, errors: list[str]) -> dict[str, Node]:
    entries: dict[str, Node] = {}
    for block in file.get("model_config_list"):
        for entry in block.get("config"):
            name: str = entry.get("name")
            if not name:
                errors.append(f"{entry.position}: an entry of model_config_list must have a 'name'")
            elif name in entries:
                first = entries[name].at("name")
                errors.append(f"{entry.at('name')}: model '{name}' is configured twice, first at line {first.line}")
            else:
                entries[name] = entry
    return entries


class _Load:
    """One pass over everything given; collects problems and warnings instead of stopping at the first."""

    def __init__(self, given: Given, path: Path | None, file: Node | None) -> None:
        self.given = given
        self.path = path
        self.file = file
        self.errors = list(given.errors)
        self.warnings: list[str] = []

    def result(self) -> ServerConfig:
        values = {option.name: value for option in SETTINGS for value in self.last(option)}
        values["model_repository"] = self.repositories()
        for strict in self.last(_STRICT):
            values.setdefault("disable_auto_complete_config", strict)
            self.warnings.append("strict_model_config is deprecated, use disable_auto_complete_config")
        for foreign in FOREIGN:
            for where, value in self.all(foreign.option):
                verdict = foreign.verdict(value)
                if verdict:
                    (self.errors if foreign.refused else self.warnings).append(f"{where}: {verdict}")
        values["backend_config"] = self.backend_config()
        values["entries"] = _entries(self.file, self.errors) if self.file else {}
        if self.errors:
            raise ConfigError(*self.errors)
        config = ServerConfig(
            config_path=self.path,
            in_file=_other_fields(self.file) if self.file else {},
            warnings=tuple(self.warnings),
            **values,
        )
        if not config.metrics_address:
            config = replace(config, metrics_address=config.http_address)
        _check_ports(config)
        return config

    def all(self, option: Option) -> list[tuple[str, Any]]:
        """(where, value) of each time the option is given: by the flag if there is one, else in the file."""
        if option.name in self.given.texts:
            return [pair for text in self.given.texts[option.name] for pair in self.from_flag(option, text)]
        if self.file is None or not option.in_file or option.name not in self.file:
            return []
        value = self.file.get(option.name)
        where = f"{self.file.at(option.name)}: {option.name}"
        values = value if option.repeated else (value,)
        return [pair for one in values for pair in self.checked(option, where, one)]

    def last(self, option: Option) -> list[Any]:
        """The value that counts, or nothing when the option is not given."""
        return [value for _, value in self.all(option)[-1:]]

    def from_flag(self, option: Option, text: str) -> list[tuple[str, Any]]:
        try:
            value = 1 if option.name == "log_verbose" and text.lower() == "true" else option.read(text)
        except ValueError as error:
            self.errors.append(f"{option.flag}: {error}")
            return []
        return self.checked(option, f"{option.flag}={text}", value)

    def checked(self, option: Option, where: str, value: Any) -> list[tuple[str, Any]]:
        try:
            option.check(value)
        except ValueError as error:
            built = "; explicit is not built yet" if value == "explicit" else ""
            self.errors.append(f"{where.partition('=')[0]}: {error}{built}")
            return []
        return [(where, value)]

    def repositories(self) -> tuple[Path, ...]:
        """Absolute paths, from the flags, else from the file, else the default beside the file."""
        option = next(one for one in SETTINGS if one.name == "model_repository")
        given = [pair for one in (option, _MODEL_STORE) for pair in self.all(one)]
        from_flags = {"model_repository", "model_store"} & self.given.texts.keys()
        base = Path.cwd() if from_flags or self.path is None else self.path.parent
        if from_flags:
            given = [pair for pair in given if pair[0].startswith("--")]
        paths = []
        for where, text in given:
            place = where.partition("=")[0]
            if "://" in text:
                self.errors.append(f"{place}: '{text}': repositories in a cloud are not built yet, give a directory")
            elif not (base / text).is_dir():
                self.errors.append(f"{place}: model repository '{base / text}' is not a directory")
            else:
                paths.append((base / text).resolve())
        return tuple(dict.fromkeys(paths)) if given else self.default_repository()

    def default_repository(self) -> tuple[Path, ...]:
        beside = [self.path.parent / name for name in ("model_repository", "models")] if self.path else []
        for directory in beside:
            if directory.is_dir():
                return (directory.resolve(),)
        tried = ", nor is there " + " or ".join(map(str, beside)) if beside else ""
        field_too = " or the field model_repository" if self.path else ""
        self.errors.append(f"there is no model repository: give --model-repository=PATH{field_too}{tried}")
        return ()

    def backend_config(self) -> BackendSettings:
        settings: dict[str, dict[str, str]] = {}
        for block in self.file.get("backend_config") if self.file else ():
            settings.setdefault(block.get("backend"), {}).update(block.get("parameters"))
        for text in self.given.texts.get("backend_config", ()):
            try:
                backend, key, value = backend_settings.parse_flag(text)
            except ValueError as error:
                self.errors.append(str(error))
            else:
                settings.setdefault(backend, {})[key] = value
        for backend in {"": {}, **settings}:
            try:
                backend_settings.shm_sizes(settings, backend)
                backend_settings.default_max_batch_size(settings, backend)
            except ValueError as error:
                shown = f" for '{backend}'" if backend else ""
                self.errors.append(f"backend_config{shown}: {error}")
        self.warnings += backend_settings.notes(settings, BACKENDS)
        return settings


def _check_ports(config: ServerConfig) -> None:
    taken: dict[tuple[str, int], str] = {}
    for kind, allowed, address, port in (
        ("HTTP", config.allow_http, config.http_address, config.http_port),
        ("GRPC", config.allow_grpc, config.grpc_address, config.grpc_port),
        ("metrics", config.allow_metrics, config.metrics_address, config.metrics_port),
    ):
        if not allowed or port == 0:
            continue
        other = taken.setdefault((address, port), kind)
        if other != kind:
            raise ConfigError(
                f"The server cannot listen to {other} requests and {kind} requests at the same address and port "
                f"{address}:{port}"
            )

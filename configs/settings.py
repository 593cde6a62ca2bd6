"""Every setting of the server, declared once: flags, fields of server.pbtxt, defaults and `--help` follow from it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from configs import backend_settings, cache
from configs.backend_settings import BackendSettings
from configs.cache import CacheConfig
from configs.deprecated import TRACE_FLAGS
from configs.foreign import FOREIGN
from configs.options import Option, declared, help_lines, setting
from configs.remote import Remote
from configs.tree import Node

_LARGE = 2**31 - 1
_SERVER, _REPOSITORY, _LOGGING = "Server", "Model repository", "Logging"
_server = partial(setting, _SERVER)
_repository = partial(setting, _REPOSITORY)
_logging = partial(setting, _LOGGING)
_http = partial(setting, "HTTP")
_grpc = partial(setting, "gRPC")
_metrics = partial(setting, "Metrics")
_cache = partial(setting, "Response cache")
_cloud = partial(setting, "SageMaker and Vertex AI")
_port = partial(partial, form="PORT", low=0, high=65535)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Every setting of the server, in the units and with the defaults that the option's help says."""

    id: str = _server("triton", "Name of the server in its metadata.")
    exit_on_error: bool = _server(True, "Exit when a model fails to load at the start.")
    strict_readiness: bool = _server(
        True, "The server is ready only when all its models are; else as soon as it answers."
    )
    exit_timeout_secs: int = _server(30, "Seconds that a shutdown waits for requests to finish.", low=0, high=_LARGE)
    drain_delay_secs: int = _server(
        0, "Seconds that the server serves on after SIGTERM, saying that it is not ready.", low=0, high=_LARGE
    )
    record: str = _server(
        "",
        "Keep requests that their model has failed in this directory, for python -m broker run --replay: the newest "
        "100, 256 MiB at the most.",
        form="DIRECTORY",
    )
    rate_limit: str = _server(
        "off",
        "execution_count: an execution waits for the resources that its instance group's rate_limiter names.",
        choices=("off", "execution_count"),
    )
    rate_limit_resource: tuple[str, ...] = _server(
        (),
        "How much there is of a resource, on each device or on one. Once one is given those that are not do not exist; "
        "without any there is as much as the neediest instance takes.",
        form="NAME:COUNT[:DEVICE]",
    )
    host_policy: tuple[str, ...] = _server(
        (),
        "On which cores the workers run whose instance group names this host_policy: cpu-cores=0-3,8 or numa-node=0. "
        "Groups that name none have the policy cpu, model, or gpu_0 and so on.",
        form="NAME,SETTING=VALUE",
    )

    backend_directory: str = _server(
        "",
        'Directory of Python-based backends: NAME/model.py serves models with backend: "NAME". In the file it is '
        "relative to the file. Default: 'backends' in the prefix of the Python that runs the server.",
        form="PATH",
    )

    model_repository: tuple[Path, ...] = _repository(
        (),
        "Directory with one directory per model, or the URL of one (s3://, gs://, as://, hf://, or http(s):// of an "
        "archive). In the file a directory is relative to the file. Default: 'model_repository', then 'models', beside "
        "the file.",
        form="PATH",
        aliases=("model_store",),
    )
    repository_cache: str = _repository(
        "",
        "Directory for copies of remote repositories. Default: tidepool/repositories in XDG_CACHE_HOME, else in "
        "~/.cache.",
        form="PATH",
    )
    model_control_mode: str = _repository(
        "none",
        "none: models load at the start. poll: the repository is also read again every repository_poll_secs. "
        "explicit: only load_model loads at the start, clients load and unload. on-demand: a model loads at its first "
        "request, and leaves when it is idle or others need its memory.",
        choices=("none", "poll", "explicit", "on-demand"),
    )
    load_model: tuple[str, ...] = _repository(
        (), "Model to load at the start in mode explicit; '*' is all.", form="MODEL"
    )
    model_load_thread_count: int = _repository(
        4, "Instances that load at the same time, as long as there is memory for them.", low=1, high=_LARGE
    )
    model_memory_budget: int = _repository(
        0,
        "Bytes of memory that all models together may take; the least recently used leave for others. 0: no limit.",
        low=0,
        high=2**63 - 1,
    )
    model_gpu_memory_budget: int = _repository(0, "The same for the memory of each GPU.", low=0, high=2**63 - 1)
    model_idle_ttl: float = _repository(
        0.0, "Seconds without a request after which a model leaves, in mode on-demand; 0: never.", low=0, high=_LARGE
    )
    repository_poll_secs: int = _repository(15, "Seconds between two reads in mode poll.", low=1, high=_LARGE)
    model_namespacing: bool = _repository(
        False, "Repositories are namespaces: models of the same name in several of them are all loaded."
    )
    model_config_name: str = _repository(
        "",
        "Read MODEL/configs/NAME.pbtxt instead of MODEL/config.pbtxt where it exists.",
        form="NAME",
        needs_text=True,
    )
    model_signature_key: str = _repository(
        "", "Serve only models that are signed with this Ed25519 key (public, PEM).", form="PATH"
    )
    disable_auto_complete_config: bool = _repository(
        False, "Every model needs a complete configuration; nothing is inferred.", takes_value=False
    )

    log_verbose: int = _logging(0, "Level of verbose log lines, 0 for none.", low=0, high=_LARGE, true_is_one=True)
    log_info: bool = _logging(True, "Write log lines of level info.")
    log_warning: bool = _logging(True, "Write log lines of level warning.")
    log_error: bool = _logging(True, "Write log lines of level error.")

    log_format: str = _logging(
        "default", "Form of a log line: default (glog's), ISO8601, or json.", choices=("default", "ISO8601", "json")
    )
    log_file: str = _logging("", "File that the log is appended to, instead of the console.", form="PATH")
    log_access: bool = _logging(False, "Write a log line for every inference request.")

    allow_http: bool = _http(True, "Serve HTTP.")
    http_address: str = _http("0.0.0.0", "Address to serve HTTP on.", form="ADDRESS")
    http_port: int = _port(_http)(8000, "Port to serve HTTP on; 0 takes a free one.")
    reuse_http_port: bool = _http(False, "Share the HTTP port with other servers (SO_REUSEPORT).")
    http_max_input_size: int = _http(
        67108864, "Largest body of an HTTP request, in bytes, once it is decompressed.", low=1, high=2**63 - 1
    )
    http_header_forward_pattern: str = _http(
        "", "Headers whose name matches this regular expression become request parameters.", form="REGEX"
    )
    http_restricted_api: tuple[str, ...] = _http(
        (), "APIs that only requests with this header may use.", form="API[,API...]:HEADER=VALUE"
    )
    http_use_ssl: bool = _http(False, "Serve HTTPS.")
    http_server_cert: str = _http("", "Certificate of the server (PEM).", form="PATH")
    http_server_key: str = _http("", "Private key of the server (PEM).", form="PATH")
    http_client_ca: str = _http(
        "", "Certificates that sign clients' certificates, which are demanded then (PEM).", form="PATH"
    )
    http_frontends: int = _http(0, "Number of HTTP frontend processes; 0 chooses.", low=0, high=256)

    allow_grpc: bool = _grpc(True, "Serve gRPC.")
    grpc_address: str = _grpc("0.0.0.0", "Address to serve gRPC on.", form="ADDRESS")
    grpc_port: int = _port(_grpc)(8001, "Port to serve gRPC on; 0 takes a free one.")
    reuse_grpc_port: bool = _grpc(False, "Share the gRPC port with other servers (SO_REUSEPORT).")
    grpc_infer_response_compression_level: str = _grpc(
        "none", "Compression of gRPC inference responses.", choices=("none", "low", "medium", "high")
    )
    grpc_keepalive_time: int = _grpc(7200000, "Milliseconds between keepalive pings.", low=1, high=_LARGE)
    grpc_keepalive_timeout: int = _grpc(
        20000, "Milliseconds to wait for the answer to a keepalive ping.", low=1, high=_LARGE
    )
    grpc_keepalive_permit_without_calls: bool = _grpc(False, "Send keepalive pings also without calls.")
    grpc_http2_max_pings_without_data: int = _grpc(
        2, "Pings that may be sent when there is nothing else to send; 0: no limit.", low=0, high=_LARGE
    )
    grpc_http2_min_recv_ping_interval_without_data: int = _grpc(
        300000, "Milliseconds that a client without calls has to leave between pings.", low=0, high=_LARGE
    )
    grpc_http2_max_ping_strikes: int = _grpc(
        2, "Pings in excess before a connection is closed; 0: no limit.", low=0, high=_LARGE
    )
    grpc_max_connection_age: int = _grpc(0, "Milliseconds that a connection lives; 0: no limit.", low=0, high=_LARGE)
    grpc_max_connection_age_grace: int = _grpc(
        0, "Milliseconds that calls on an expired connection may still take; 0: no limit.", low=0, high=_LARGE
    )
    grpc_header_forward_pattern: str = _grpc(
        "", "Metadata whose name matches this regular expression become request parameters.", form="REGEX"
    )
    grpc_restricted_protocol: tuple[str, ...] = _grpc(
        (), "APIs that only calls with this metadata may use.", form="API[,API...]:KEY=VALUE"
    )
    grpc_use_ssl: bool = _grpc(False, "Serve gRPC over TLS.")
    grpc_use_ssl_mutual: bool = _grpc(False, "Demand clients' certificates too; implies grpc_use_ssl.")
    grpc_server_cert: str = _grpc("", "Certificate of the server (PEM).", form="PATH")
    grpc_server_key: str = _grpc("", "Private key of the server (PEM).", form="PATH")
    grpc_root_cert: str = _grpc("", "Certificates that sign clients' certificates (PEM).", form="PATH")
    grpc_frontends: int = _grpc(0, "Number of gRPC frontend processes; 0 chooses.", low=0, high=256)

    allow_client_shm: bool = setting(
        "Shared memory", True, "Clients may register their shared memory for inputs and outputs."
    )

    trace_config: tuple[str, ...] = setting(
        "Trace",
        (),
        "level=OFF|TIMESTAMPS|TENSORS, rate=N, count=N, mode=triton|opentelemetry, triton,file=PATH, "
        "triton,log-frequency=N, opentelemetry,url=URL, opentelemetry,resource=KEY=VALUE.",
        form="[MODE,]SETTING=VALUE",
    )

    cache_config: tuple[str, ...] = _cache(
        (),
        "The response cache, for models with response_cache: local,size=BYTES keeps that many bytes of responses; "
        "redis,host=HOST and redis,port=PORT (6379), also db, user, password, connect_timeout and socket_timeout (in "
        "milliseconds, 500), keep them in Redis.",
        form="CACHE,SETTING=VALUE",
    )
    response_cache_byte_size: int = _cache(0, "Older name of --cache-config=local,size=BYTES.", low=0, high=2**63 - 1)

    allow_metrics: bool = _metrics(True, "Serve metrics for Prometheus.")
    allow_gpu_metrics: bool = _metrics(True, "Include metrics of the GPUs.")
    allow_cpu_metrics: bool = _metrics(True, "Include metrics of the CPU and memory.")
    metrics_address: str = _metrics("", "Address to serve metrics on. Default: the HTTP address.", form="ADDRESS")
    metrics_port: int = _port(_metrics)(8002, "Port to serve metrics on; 0 takes a free one.")
    metrics_config: tuple[str, ...] = _metrics(
        (),
        "counter_latencies, histogram_latencies, summary_latencies = true|false; summary_quantiles.",
        form="KEY=VALUE",
    )
    metrics_interval_ms: float = _metrics(
        2000.0, "Milliseconds between two samples of GPU, CPU and memory metrics.", low=1, high=_LARGE
    )

    allow_sagemaker: bool = _cloud(False, "Serve SageMaker's /ping, /invocations and /models, on the HTTP address.")
    sagemaker_port: int = _port(_cloud)(
        8080, "Port to serve SageMaker on; 0 takes a free one. SAGEMAKER_BIND_TO_PORT is another default."
    )
    sagemaker_safe_port_range: str = _cloud(
        "",
        "Ports that all other endpoints have to be in. SAGEMAKER_SAFE_PORT_RANGE is another default.",
        form="FIRST-LAST",
    )
    allow_vertex_ai: bool = _cloud(
        False,
        "Serve Vertex AI's routes, which AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE name, on the HTTP address. With "
        "AIP_MODE=PREDICTION in the environment this is true, and allow_http and allow_grpc are false, by default.",
    )
    vertex_ai_port: int = _port(_cloud)(
        8080, "Port to serve Vertex AI on; 0 takes a free one. AIP_HTTP_PORT is another default."
    )
    vertex_ai_default_model: str = _cloud("", "Model of Vertex AI's predictions; default: the only one.", form="MODEL")

    config_path: Path | None = None
    backend_config: BackendSettings = field(default_factory=dict)
    entries: Mapping[str, Node] = field(default_factory=dict)  # model_config_list by model name
    in_file: Mapping[str, Any] = field(default_factory=dict)  # the other fields as they stand in server.pbtxt
    warnings: tuple[str, ...] = ()
    remotes: Mapping[Path, Remote] = field(default_factory=dict)  # by the directory where their models are mirrored

    @property
    def backends(self) -> Path:
        """Where Python-based backends are."""
        return backends_in(self.backend_directory)

    @property
    def cache(self) -> CacheConfig:
        """The response cache."""
        return cache.parse(self.cache_config, self.response_cache_byte_size)

    def shm(self, backend: str) -> tuple[int, int, int]:
        """(default, growth, max) bytes of a backend's arenas; max 0: no limit of its own."""
        return backend_settings.shm_sizes(self.backend_config, backend)


def backends_in(directory: str) -> Path:
    """Where Python-based backends are when `backend_directory` says this."""
    return Path(directory or Path(sys.prefix) / "backends")


CONFIG = Option(
    "config", str, "The server's configuration in protobuf text (server.pbtxt).", _SERVER, form="FILE", in_file=False
)
BACKEND_CONFIG = Option(
    "backend_config",
    str,
    "A setting of a backend, or of all. shm-default-byte-size (also shm-default-size), shm-growth-byte-size "
    "and shm-max-byte-size are the initial size, the growth and the limit (0: none) of each shared memory arena "
    "in bytes.",
    _SERVER,
    repeated=True,
    form="[BACKEND,]KEY=VALUE",
)
STRICT = Option("strict_model_config", bool, "Older name of --disable-auto-complete-config.", _REPOSITORY)
HELP = Option("help", bool, "Print this and exit.", _SERVER, in_file=False, takes_value=False)
VERSION = Option("version", bool, "Print the version and exit.", _SERVER, in_file=False, takes_value=False)

SETTINGS = declared(ServerConfig)
OPTIONS = (
    *SETTINGS,
    CONFIG,
    BACKEND_CONFIG,
    STRICT,
    HELP,
    VERSION,
    *TRACE_FLAGS,
    *(foreign.option for foreign in FOREIGN),
)


def help_text() -> str:
    """What `--help` prints."""
    return (
        "usage: python -m broker [--config=server.pbtxt] [--flag=value ...]\n\n"
        "A field of server.pbtxt is a flag with underscores for dashes; a flag wins over the file.\n\n"
        + help_lines(OPTIONS)
    )

"""Read the server's settings, once, from the command line and server.pbtxt; read the models' entries again later."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs import (
    backend_settings,
    cache,
    cloud,
    host_policy,
    metrics_config,
    pbtxt,
    python_based,
    rate_limit,
    remote,
    restricted,
    settings,
    trace,
)
from configs.backend_settings import BackendSettings
from configs.deprecated import TRACE_FLAGS, as_trace_config
from configs.errors import ConfigError
from configs.foreign import FOREIGN
from configs.layout import is_model_file
from configs.options import Given, Option, flag_of, parse_flags
from configs.proto.schema import message
from configs.remote import Remote
from configs.settings import SETTINGS, ServerConfig, backends_in
from configs.tree import Node, Position, as_json

__all__ = ["ServerConfig", "load", "reload_entries"]

TLS_FILES = (
    "http_server_cert",
    "http_server_key",
    "http_client_ca",
    "grpc_server_cert",
    "grpc_server_key",
    "grpc_root_cert",
)

WITH_SYNTAX = (
    "http_restricted_api",
    "grpc_restricted_protocol",
    "trace_config",
    "metrics_config",
    "rate_limit_resource",
    "host_policy",
    "cache_config",
)
"""Repeatable settings whose values have a syntax of their own."""

_SCHEMA = message("tidepool.ServerConfig")


def load(argv: Sequence[str]) -> ServerConfig:
    """The settings from a command line (without the program's name) and the file that it names.

    A flag wins over the file, the file over the default. `--help` and `--version` print and exit with status 0.
    Raises ConfigError with all problems that one pass can find.
    """
    given = parse_flags(argv, settings.OPTIONS)
    if settings.HELP.name in given.texts:
        sys.stdout.write(settings.help_text())
        raise SystemExit(0)
    if settings.VERSION.name in given.texts:
        sys.stdout.write(f"tidepool {version('tidepool')}\n")
        raise SystemExit(0)
    config = given.texts.get(settings.CONFIG.name)
    path = Path(os.path.abspath(config[-1])) if config else None
    file = pbtxt.read(path, _SCHEMA) if path else Node(_SCHEMA, {}, Position("", 1, 1))
    return _Load(given, path, file).result()


def reload_entries(config: ServerConfig) -> tuple[Mapping[str, Node], tuple[str, ...]]:
    """Read server.pbtxt again: its model_config_list by name, and the names of other fields that differ now.

    Those need a restart. Raises ConfigError when the file cannot be used; nothing has changed then.
    """
    if config.config_path is None:
        return config.entries, ()
    file = pbtxt.read(config.config_path, _SCHEMA)
    errors: list[str] = []
    entries = _entries(file, errors)
    if errors:
        raise ConfigError(*errors)
    now = _other_fields(file)
    names = sorted(now.keys() | config.in_file.keys())
    return entries, tuple(name for name in names if now.get(name) != config.in_file.get(name))


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

    def __init__(self, given: Given, path: Path | None, file: Node) -> None:
        self._given = given
        self._path = path
        self._file = file
        self._errors = list(given.errors)
        self._warnings: list[str] = []

    def result(self) -> ServerConfig:
        values = self._environment()
        values |= {o.name: value for o in SETTINGS if not o.repeated for _, value in self._read(o)}
        for where, strict in self._read(settings.STRICT):
            self._warnings.append(f"{where} is deprecated, use disable_auto_complete_config")
            values.setdefault("disable_auto_complete_config", strict)
        if values.get("response_cache_byte_size"):
            self._warnings.append("response_cache_byte_size is deprecated, use cache_config with local,size=BYTES")
        self._judge_foreign()
        cache = Path(os.path.abspath(values.get("repository_cache") or remote.default_cache(os.environ)))
        values["remotes"] = {}
        values["model_repository"] = self._repositories(cache, values["remotes"])
        if values["remotes"]:
            values["repository_cache"] = str(cache)
            if not remote.is_usable(cache):
                self._errors.append(f"repository_cache: '{cache}' cannot be written: give --repository-cache=PATH")
        values["backend_directory"] = self._backend_directory()
        values["load_model"] = self._load_models(values.get("model_control_mode", ServerConfig.model_control_mode))
        values |= {name: self._all(name) for name in WITH_SYNTAX}
        values["trace_config"] = as_trace_config(self._older_traces(), values["trace_config"])
        self._errors += self._problems_of(values)
        values["backend_config"] = self._backend_config(backends_in(values["backend_directory"]))
        values["entries"] = _entries(self._file, self._errors)
        values["metrics_address"] = values.get("metrics_address") or values.get(
            "http_address", ServerConfig.http_address
        )
        config = ServerConfig(
            config_path=self._path, in_file=_other_fields(self._file), warnings=tuple(self._warnings), **values
        )
        self._errors += [*_port_conflicts(config), *cloud.problems(config, os.environ)]
        if self._errors:
            raise ConfigError(*self._errors)
        return config

    def _older_traces(self) -> dict[str, list[Any]]:
        """What older flags say about traces."""
        found = {option.name: self._read(option) for option in TRACE_FLAGS}
        self._warnings += [f"{read[-1][0]} is deprecated, use --trace-config" for read in found.values() if read]
        return {name: [value for _, value in read] for name, read in found.items()}

    def _environment(self) -> dict[str, Any]:
        try:
            return cloud.from_environment(os.environ)
        except ValueError as error:
            self._errors.append(str(error))
            return {}

    def _read(self, option: Option) -> list[tuple[str, Any]]:
        """(where, value) each time the option is given: by the flag, else in the file; the last one counts."""
        values = []
        for where, value in self._from_flags(option) if option.name in self._given.texts else self._from_file(option):
            try:
                option.check(value)
            except ValueError as error:
                self._errors.append(str(error) if where in str(error) else f"{where}: {error}")
            else:
                values.append((where, value))
        return values

    def _from_flags(self, option: Option) -> Iterator[tuple[str, Any]]:
        for text in self._given.texts[option.name]:
            try:
                yield option.flag, option.read(text)
            except ValueError as error:
                self._errors.append(str(error) if option.flag in str(error) else f"{option.flag}: {error}")

    def _from_file(self, option: Option) -> Iterator[tuple[str, Any]]:
        for name in (option.name, *option.aliases):
            if option.in_file and name in self._file:
                value = self._file.get(name)
                for one in value if option.repeated else (value,):
                    yield f"{self._file.at(name)}: {name}", one

    def _all(self, name: str) -> tuple[str, ...]:
        """Every value of a repeatable setting."""
        return tuple(value for _, value in self._read(next(o for o in SETTINGS if o.name == name)))

    def _problems_of(self, values: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong within settings that have a syntax of their own, or need each other."""
        for name, parse in (
            ("trace_config", trace.parse),
            ("metrics_config", metrics_config.parse),
            ("rate_limit_resource", rate_limit.parse),
            ("host_policy", host_policy.parse),
        ):
            try:
                parse(values[name])
            except ValueError as error:
                yield f"{name}: {error}"
        try:
            cache.parse(values["cache_config"], values.get("response_cache_byte_size", 0))
        except ValueError as error:
            yield f"cache_config: {error}"
        for name, word in (("http_restricted_api", "api"), ("grpc_restricted_protocol", "protocol")):
            yield from (f"{name}: {problem}" for problem in restricted.problems(values[name], word))
        for name in ("http_header_forward_pattern", "grpc_header_forward_pattern"):
            try:
                re.compile(values.get(name, ""))
            except re.error as error:
                yield f"{name}: '{values[name]}' is no regular expression: {error}"
        yield from _tls_problems(values)

    def _load_models(self, mode: str) -> tuple[str, ...]:
        """What mode explicit loads at the start."""
        names = self._all("load_model")
        if names and mode != "explicit":
            self._errors.append(
                "Error: Use of '--load-model' requires setting '--model-control-mode=explicit' as well."
            )
        if "*" in names and len(names) > 1:
            self._errors.append("Wildcard model name '*' must be the ONLY startup model if specified at all.")
        return names

    def _judge_foreign(self) -> None:
        for foreign in FOREIGN:
            for where, value in self._read(foreign.option):
                if value in foreign.harmless:
                    continue
                if foreign.refused:
                    self._errors.append(f"{where} is refused: {foreign.option.help}")
                else:
                    self._warnings.append(f"{where} has no effect: {foreign.option.help}")

    def _base(self, option: Option) -> Path:
        """What an option's relative paths start from: for flags the working directory, else the file's."""
        from_file = self._path is not None and option.name not in self._given.texts
        return self._path.parent if self._path and from_file else Path.cwd()

    def _backend_directory(self) -> str:
        """An absolute path, "" for the default."""
        option = next(one for one in SETTINGS if one.name == "backend_directory")
        for where, text in self._read(option)[-1:]:
            path: str = os.path.abspath(self._base(option) / text)
            if not os.path.isdir(path):
                self._warnings.append(f"{where}: '{path}' is not a directory: there are no Python-based backends")
            return path
        return ""

    def _repositories(self, cache: Path, remotes: dict[Path, Remote]) -> tuple[Path, ...]:
        """Absolute paths, from the flags, else from the file, else the default beside the file.

        Those that lie elsewhere are mirrored: `remotes` gets their URLs by the paths of the mirrors.
        """
        option = next(one for one in SETTINGS if one.name == "model_repository")
        base = self._base(option)
        given = self._read(option)
        paths = []
        for where, text in given:
            directory = Path(os.path.abspath(base / text))
            if "://" in text:
                directory = self._mirror(where, text, cache, remotes)
            elif not os.path.isdir(directory) and not (os.path.isfile(directory) and is_model_file(directory.name)):
                self._errors.append(f"{where}: '{directory}' is not a directory")  # os.path takes names that cannot be
            paths.append(directory)
        return tuple(dict.fromkeys(paths)) if given else self._default_repository()

    def _mirror(self, where: str, text: str, cache: Path, remotes: dict[Path, Remote]) -> Path:
        try:
            found = remote.parse(text)
        except ValueError as error:
            self._errors.append(f"{where}: '{text}': {error}")
            return cache
        if missing := remote.lacking(found):
            self._errors.append(f"{where}: {missing}")
        directory = remote.models_directory(cache, found)
        remotes[directory] = found
        return directory

    def _default_repository(self) -> tuple[Path, ...]:
        beside = [self._path.parent / name for name in ("model_repository", "models")] if self._path else []
        for directory in beside:
            if directory.is_dir():
                return (directory,)
        ways = f"give {flag_of('model_repository')}=PATH"
        if beside:
            ways += f" or the field model_repository, or make {' or '.join(map(str, beside))}"
        if not self._given.errors:  # else it may only be misspelt
            self._errors.append(f"there is no model repository: {ways}")
        return ()

    def _backend_config(self, backends: Path) -> BackendSettings:
        merged: dict[str, dict[str, str]] = {}
        for block in self._file.get("backend_config"):
            merged.setdefault(block.get("backend"), {}).update(block.get("parameters"))
        for text in self._given.texts.get(settings.BACKEND_CONFIG.name, ()):
            try:
                backend, key, value = backend_settings.parse_flag(text)
            except ValueError as error:
                self._errors.append(str(error))
            else:
                merged.setdefault(backend, {})[key] = value
        self._errors += backend_settings.problems(merged)
        self._warnings += backend_settings.notes(merged, python_based.names(backends))
        return merged


def _port_conflicts(config: ServerConfig) -> Iterator[str]:
    taken: dict[tuple[str, int], str] = {}
    for kind, allowed, address, port in (
        ("HTTP", config.allow_http, config.http_address, config.http_port),
        ("GRPC", config.allow_grpc, config.grpc_address, config.grpc_port),
        ("metrics", config.allow_metrics, config.metrics_address, config.metrics_port),
        ("SageMaker", config.allow_sagemaker, config.http_address, config.sagemaker_port),
        ("Vertex AI", config.allow_vertex_ai, config.http_address, config.vertex_ai_port),
    ):
        other = taken.setdefault((address, port), kind) if allowed and port else kind
        if other != kind:
            yield (
                f"The server cannot listen to {other} requests and {kind} requests at the same address and port "
                f"{address}:{port}"
            )


def _tls_problems(values: Mapping[str, Any]) -> Iterator[str]:
    for protocol in ("http", "grpc"):
        uses_ssl = values.get(f"{protocol}_use_ssl") or values.get(f"{protocol}_use_ssl_mutual")
        for name in (f"{protocol}_server_cert", f"{protocol}_server_key"):
            if uses_ssl and not values.get(name):
                yield f"{protocol}_use_ssl needs {name}"
    for name in (*TLS_FILES, "model_signature_key"):
        path = values.get(name, "")
        if path and not os.access(path, os.R_OK):
            yield f"{name}: '{path}' cannot be read"

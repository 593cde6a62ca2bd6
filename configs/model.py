"""One model's configuration: read, merged with the server's entry, completed, checked and normalised."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from configs import (
    agents,
    autocomplete,
    cache,
    ensemble,
    environment,
    host_policy,
    instances,
    layout,
    pbtxt,
    policy,
    python_based,
    sequences,
    unbuilt,
    validate,
    warmup,
)
from configs.autocomplete import Kind
from configs.backend_settings import BACKENDS
from configs.description import DynamicBatching, Environment, ModelDescription, QueuePolicy, TensorSpec
from configs.errors import ConfigError, nearest, one_line
from configs.namespaces import bare_name
from configs.proto.schema import message
from configs.settings import ServerConfig
from configs.tree import Node, Position, as_json, merge

_SCHEMA = message("inference.ModelConfig")
_GROUP = message("inference.ModelInstanceGroup")
_FOR_THE_BROKER = ("dynamic_batching", "instance_group", "version_policy", "response_cache", "metric_tags")
"""Fields that no worker acts on: they take effect in the running version."""


def describe(
    directory: Path,
    entry: Node | None,
    server: ServerConfig,
    gpus: Sequence[str],
    override: Node | None = None,
    name: str = "",
) -> ModelDescription:
    """Everything the server needs to know about the model in `directory`; reads nothing outside it.

    `entry` is the model's entry in the server's model_config_list: its fields win over config.pbtxt, each as a whole
    (also repeated, map and message fields). `gpus` are the devices that the server may use, as entries of
    CUDA_VISIBLE_DEVICES. `override` (from a load request) replaces config.pbtxt and entry. The model is served under
    `name`, else under that of its directory. Raises ConfigError.
    """
    try:
        config = _read(directory, entry, server) if override is None else _named(override, directory)
        described = _describe(directory, bare_name(name) or directory.name, config, server, gpus)
        namespace = str(directory.parent) if server.model_namespacing else ""
        return replace(described, name=name or directory.name, namespace=namespace, is_inferred=not config.fields)
    except OSError as error:
        raise ConfigError(f"{error.filename or directory}: cannot be read: {error.strerror or error}") from error


def _describe(directory: Path, name: str, config: Node, server: ServerConfig, gpus: Sequence[str]) -> ModelDescription:
    versions, warnings = layout.version_directories(directory)
    warnings += [*cache.hint(config, name, server.cache), *host_policy.unknown(config, name, server.host_policy)]
    _raise_any([*(what.refusal(name) for what in unbuilt.refused(config)), *ensemble.problems(config, name)])
    digests = agents.verify(config, directory, server.model_signature_key)
    kind = _kind(config, name, versions, server.backends)
    target = instances.Target(name, kind.platform, kind.backend, gpus)
    problems = [*validate.problems(config, name), *_file_problems(config, directory, kind)]
    problems += [what.refusal(name) for what in unbuilt.refused_of(config, kind.backend)]
    problems += [*warmup.problems(config, directory), *cache.problems(config, name)]
    groups = _groups(config, target, problems) if kind.platform != ensemble.PLATFORM else []
    if any(group["kind"] == "KIND_GPU" for group in groups):
        problems += [what.refusal(name) for what in unbuilt.refused_on_gpu(config)]
    _raise_any(problems)
    selected = _select(config, versions, name, warnings)
    form = _normalised(config, kind, name, groups)
    library = python_based.find(server.backends, kind.backend) if kind.backend not in BACKENDS else None
    if library is not None:
        form["runtime"] = python_based.FILE
    parameters = {key: parameter["string_value"] for key, parameter in form["parameters"].items()}
    _raise_any(f"{config.at('parameters')}: {problem} for {name}" for problem in policy.problems(form, parameters))
    padding = policy.paddings(form, parameters)
    runs_in = environment.find(directory, kind.backend, parameters, library)
    return ModelDescription(
        name=name,
        path=str(directory),
        backend=kind.backend,
        platform=kind.platform,
        versions=selected,
        max_batch_size=form["max_batch_size"],
        inputs=tuple(replace(_tensor(t, directory), padding=padding.get(t["name"])) for t in form["input"]),
        outputs=tuple(_tensor(tensor, directory) for tensor in form["output"]),
        instances=instances.expand(groups, gpus),
        dynamic_batching=dynamic_batching(form),
        decoupled=form.get("model_transaction_policy", {}).get("decoupled", False),
        parameters=parameters,
        config=form,
        fingerprint=_fingerprint(form, directory, runs_in, library),
        version_fingerprints={version: layout.fingerprint(versions[version]) for version in selected},
        warnings=tuple(map(one_line, (*warnings, *(what.hint(name) for what in unbuilt.hints(config, kind.backend))))),
        batch_key=parameters.get(policy.BATCH_KEY, ""),
        tenants=policy.tenants(parameters),
        steps=ensemble.steps(form),
        sequence_batching=sequences.read(form),
        environment=runs_in,
        digests=digests,
    )


def _raise_any(problems: Iterable[str]) -> None:
    lines = tuple(problems)
    if lines:
        raise ConfigError(*lines)


def _read(directory: Path, entry: Node | None, server: ServerConfig) -> Node:
    """The model's own file with the entry over it; raises ConfigError."""
    custom = directory / "configs" / f"{server.model_config_name}.pbtxt"
    own = custom if server.model_config_name and custom.is_file() else directory / "config.pbtxt"
    if os.path.lexists(own):
        config = pbtxt.read(own, _SCHEMA)
    elif server.disable_auto_complete_config and entry is None:
        raise ConfigError(f"model configuration is not provided for model '{directory.name}'")
    else:
        config = Node(_SCHEMA, {}, Position(pbtxt.shown(own), 1, 1))
    named = _named(config, directory)
    return merge(named, entry) if entry is not None else named


def _named(config: Node, directory: Path) -> Node:
    """The configuration, if its name is the directory's; raises ConfigError."""
    stated = config.get("name")
    if stated not in ("", directory.name):
        raise ConfigError(
            f"{config.at('name')}: unexpected directory name '{directory.name}' for model '{stated}', directory name "
            "must equal model name"
        )
    return config


def _kind(config: Node, name: str, versions: dict[int, Path], backends: Path) -> Kind:
    if config.get("platform") == ensemble.PLATFORM:
        return Kind(ensemble.PLATFORM, "", "")
    first = min(versions.values(), key=lambda path: path.name, default=None)
    files = os.listdir(first) if first else []
    given = Kind(config.get("platform"), config.get("backend"), config.get("default_model_filename"))
    try:
        kind = autocomplete.infer(name, given, files)
    except ValueError as error:
        raise ConfigError(f"{config.at('platform')}: {error}" if given.platform else str(error)) from error
    if kind.backend not in BACKENDS and python_based.find(backends, kind.backend) is None:
        known = (*BACKENDS, *python_based.names(backends))
        field = "backend" if given.backend or not given.platform else "platform"
        where = f"{config.at(field)}: " if given.backend or given.platform else ""
        raise ConfigError(
            f"{where}unable to find backend library for backend '{kind.backend}', try specifying runtime on the model "
            f"configuration. Backends here are {', '.join(known)}{nearest(kind.backend, known, limit=0)}"
        )
    if config.get("runtime") in unbuilt.RUNTIMES.get(kind.backend, ()):
        return kind._replace(filename=given.filename)  # the runtime has a file of its own
    return kind


def _file_problems(config: Node, directory: Path, kind: Kind) -> Iterable[str]:
    filename = PurePosixPath(kind.filename)
    if filename.is_absolute() or ".." in filename.parts:
        yield (
            f"{config.at('default_model_filename')}: 'default_model_filename' must be a path inside the version "
            f"directory, got '{kind.filename}'"
        )
    root = directory.resolve()
    for output in config.get("output"):
        label = output.get("label_filename")
        if label and not (root / label).resolve().is_relative_to(root):
            yield (
                f"{output.at('label_filename')}: label file path '{label}' for output '{output.get('name')}' in model "
                f"'{directory.name}' is outside model directory"
            )


def _groups(config: Node, target: instances.Target, problems: list[str]) -> list[dict[str, Any]]:
    nodes: Sequence[Node] = config.get("instance_group")
    if not nodes:
        empty = as_json(Node(_GROUP, {}, config.position))
        return [instances.normalise_group(instances.default_group(target, empty), 0, target)]
    groups = []
    for index, node in enumerate(nodes):
        try:
            groups.append(instances.normalise_group(as_json(node), index, target))
        except ValueError as error:
            problems.append(f"{node.position}: {error}")
    return groups


def _select(config: Node, versions: dict[int, Path], model: str, warnings: list[str]) -> tuple[int, ...]:
    """The versions that the policy selects, ascending; raises ConfigError when there is none."""
    policy: Node | None = config.get("version_policy")
    selected = list(versions)
    if policy is None:
        selected = selected[-1:]
    elif "latest" in policy:
        number = policy.get("latest").get("num_versions")
        selected = selected[-number:] if number else []
    elif "specific" in policy:
        wanted = set(policy.get("specific").get("versions"))
        selected = [version for version in selected if version in wanted]
        warnings += [
            f"version {version} is specified for model '{model}', but the version directory is not present"
            for version in sorted(wanted - versions.keys())
        ]
    if not selected:
        raise ConfigError(
            f"at least one version must be available under the version policy of model '{model}'"
            + (f" (version directories: {', '.join(map(str, versions)) or 'none'})")
        )
    return tuple(selected)


def _normalised(config: Node, kind: Kind, name: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The configuration as it is reported: every default printed, in the order of the schema."""
    form = as_json(config)
    if kind.platform == ensemble.PLATFORM:
        form.setdefault("model_transaction_policy", {"decoupled": False})
        form.setdefault("version_policy", {"latest": {"num_versions": 1}})
        if not form["ensemble_scheduling"]["max_inflight_requests"]:
            del form["ensemble_scheduling"]["max_inflight_requests"]  # older clients do not know it
        return _ordered({**form, "name": name}, "inference.ModelConfig")
    optimization = form.get("optimization") or as_json(
        Node(message("inference.ModelOptimizationPolicy"), {}, config.position)
    )
    for memory in ("input_pinned_memory", "output_pinned_memory"):
        optimization.setdefault(memory, {"enable": True})
    form |= {
        "name": name,
        "platform": kind.platform,
        "backend": kind.backend,
        "default_model_filename": kind.filename,
        "instance_group": groups,
        "optimization": _ordered(optimization, "inference.ModelOptimizationPolicy"),
    }
    form.setdefault("version_policy", {"latest": {"num_versions": 1}})
    batching = form.get("dynamic_batching")
    if batching is not None and not batching["preferred_batch_size"] and form["max_batch_size"] > 0:
        batching["preferred_batch_size"] = [form["max_batch_size"]]
    sequences.normalise(form)
    return _ordered(form, "inference.ModelConfig")


def _ordered(form: dict[str, Any], schema: str) -> dict[str, Any]:
    return {field.name: form[field.name] for field in message(schema).fields if field.name in form}


def _tensor(form: dict[str, Any], directory: Path) -> TensorSpec:
    datatype = form["data_type"].removeprefix("TYPE_")
    label_filename = form.get("label_filename")
    return TensorSpec(
        name=form["name"],
        datatype="BYTES" if datatype == "STRING" else datatype,
        dims=tuple(form["dims"]),
        reshape=tuple(form["reshape"]["shape"]) if "reshape" in form else None,
        optional=form.get("optional", False),
        labels=_labels(directory / label_filename) if label_filename else (),
        ragged=form.get("allow_ragged_batch", False),
    )


def _labels(file: Path) -> tuple[str, ...]:
    """One label on each line; the line's number is the index of its class. Raises OSError."""
    lines = file.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    return tuple(line.removesuffix("\r") for line in lines)


def dynamic_batching(form: dict[str, Any]) -> DynamicBatching | None:
    """The block of a normalised configuration, None when there is none."""
    block = form.get("dynamic_batching")
    if block is None:
        return None
    return DynamicBatching(
        preferred_batch_size=tuple(block["preferred_batch_size"]) or (1,),  # (1,): the model cannot batch
        max_queue_delay=block["max_queue_delay_microseconds"] / 1e6,
        preserve_ordering=block["preserve_ordering"],
        default_priority_level=block["default_priority_level"] if block["priority_levels"] else 0,
        policies=_policies(block),
    )


def _policies(block: dict[str, Any]) -> dict[int, QueuePolicy]:
    """The queue policy of every priority level; level 0 where there are no priorities."""
    default = _policy(block.get("default_queue_policy"))
    if not block["priority_levels"]:
        return {0: default}
    own = {int(level): _policy(policy) for level, policy in block["priority_queue_policy"].items()}
    return {level: own.get(level, default) for level in range(1, block["priority_levels"] + 1)}


def _policy(form: dict[str, Any] | None) -> QueuePolicy:
    if form is None:
        return QueuePolicy()
    return QueuePolicy(
        max_queue_size=form["max_queue_size"],
        default_timeout=form["default_timeout_microseconds"] / 1e6,
        allow_timeout_override=form["allow_timeout_override"],
        rejects=form["timeout_action"] == "REJECT",
    )


def _fingerprint(form: dict[str, Any], directory: Path, runs_in: Environment | None, library: Path | None) -> str:
    loaded = {key: value for key, value in form.items() if key not in _FOR_THE_BROKER}
    loaded["parameters"] = {key: value for key, value in form["parameters"].items() if not policy.is_the_brokers(key)}
    parts = [str(directory), loaded, runs_in and asdict(runs_in), layout.shared_fingerprint(directory)]
    parts += [layout.fingerprint(library)] if library is not None else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""What the broker needs to know about one model: the finished result of reading its configuration.

Made by `configs.model.describe` in the repository process, sent over the fabric as plain data (`to_wire`),
kept by the broker's core. Nothing here reads a file. Durations are seconds; byte sizes are bytes.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from configs import sequences
from configs.sequences import SequenceBatching


@dataclass(frozen=True, slots=True)
class Padding:
    """How requests that differ in one dimension of an input (`axis`, counted with the batch's) are made equal.

    They are padded to the smallest bucket that takes them; without buckets to the longest of the batch.
    """

    axis: int
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One declared input or output. `datatype` is the V2 name (`FP32`, `BYTES`), `""` accepts any.

    `dims` is without the batch dimension, -1 is any size; None leaves the shape unchecked.
    `reshape` is the shape the backend wants instead (None: as sent). `labels` are the lines of an output's label file.
    `ragged`: requests run together also when their shapes differ.
    """

    name: str
    datatype: str
    dims: tuple[int, ...] | None
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    labels: tuple[str, ...] = ()
    ragged: bool = False
    padding: Padding | None = None


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How long a level's queue may be and how many seconds a request may wait in it; 0: without limit.

    `rejects`: a request that has waited too long is refused; else it moves behind those that have not.
    """

    max_queue_size: int = 0
    default_timeout: float = 0.0
    allow_timeout_override: bool = False
    rejects: bool = True


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """The `dynamic_batching` block; `preferred_batch_size` is never empty once normalised.

    `policies` by priority level, 1 the most urgent; only level 0 where there are no priorities.
    """

    preferred_batch_size: tuple[int, ...]
    max_queue_delay: float = 0.0
    preserve_ordering: bool = False
    default_priority_level: int = 0
    policies: dict[int, QueuePolicy] = field(default_factory=lambda: {0: QueuePolicy()})

    @property
    def has_policies(self) -> bool:
        """Requests may be refused or reordered while they wait, so they should wait in the queue."""
        return self.policies != {0: QueuePolicy()}


@dataclass(frozen=True, slots=True)
class Tenants:
    """Who shares a model: the request parameter that names the tenant, and weights by name; others have 1."""

    key: str
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resource:
    """What an instance takes of the rate limiter while it executes; `device` None: of what all devices share."""

    name: str
    device: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance to run: a line of an `instance_group` multiplied by `count` (and by `gpus`).

    `signature` is equal for instances that can stand in for each other (device and group, less name and count).
    `visible_devices` is the worker's CUDA_VISIBLE_DEVICES: `""` for KIND_CPU, one device for KIND_GPU, None to
    inherit the server's (KIND_MODEL). `priority` divides its share of executions where resources are short.
    `host_policy` names the cores that its worker runs on, if the server knows the name.
    """

    name: str
    kind: str
    device: str
    visible_devices: str | None
    signature: str
    resources: tuple[Resource, ...] = ()
    priority: int = 1
    host_policy: str = ""


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One step of an ensemble: a model, its version (-1: the newest), and tensors of the ensemble by its own names."""

    model: str
    version: int
    inputs: tuple[tuple[str, str], ...]  # (input of the model, tensor of the ensemble)
    outputs: tuple[tuple[str, str], ...]  # likewise


@dataclass(frozen=True, slots=True)
class Environment:
    """What the workers of a Python model run in. `stamp` changes when what lies at `path` does.

    `kind` is `packages` (a list of them, installed), `archive` (an environment to unpack) or `folder` (one as it is).
    `python` is the wanted version of Python, `""` the server's own.
    """

    kind: str
    path: str
    stamp: str
    python: str = ""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model as configured: everything the broker schedules on and everything a worker is told at load."""

    name: str
    path: str  # the model's directory
    backend: str
    platform: str
    versions: tuple[int, ...]  # those that the version policy selects, ascending
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    instances: tuple[Instance, ...]
    dynamic_batching: DynamicBatching | None
    decoupled: bool
    parameters: dict[str, str]
    config: dict[str, Any]  # the normalised ModelConfig in its JSON form (snake_case, defaults printed)
    fingerprint: str  # changes exactly when the workers have to be reloaded
    version_fingerprints: dict[int, str] = field(default_factory=dict)  # per version: its files
    warnings: tuple[str, ...] = ()
    batch_key: str = ""  # the request parameter that is equal within a batch
    tenants: Tenants | None = None
    steps: tuple[EnsembleStep, ...] = ()  # of an ensemble, which has no instances
    sequence_batching: SequenceBatching | None = None
    namespace: str = ""  # its repository, under model_namespacing
    environment: Environment | None = None  # of Python models; None: the server's own
    digests: dict[str, str] = field(default_factory=dict)  # by path: `MD5:...` of files that were checked
    is_inferred: bool = False  # there was no configuration
    load_byte_size: int = field(default=0, compare=False)  # memory that an instance is expected to take to load

    def to_wire(self) -> dict[str, Any]:
        """Plain data for msgpack."""
        return asdict(self)

    @staticmethod
    def from_wire(data: dict[str, Any]) -> "ModelDescription":
        """The mirror of `to_wire`: lists become tuples again."""
        batching, sequencing = data["dynamic_batching"], data["sequence_batching"]
        return ModelDescription(
            **{
                **data,
                "versions": tuple(data["versions"]),
                "inputs": tuple(_tensor(t) for t in data["inputs"]),
                "outputs": tuple(_tensor(t) for t in data["outputs"]),
                "instances": tuple(_instance(i) for i in data["instances"]),
                "dynamic_batching": batching and _batching(batching),
                "sequence_batching": sequencing and sequences.from_wire(sequencing),
                "warnings": tuple(data["warnings"]),
                "tenants": data["tenants"] and Tenants(**data["tenants"]),
                "steps": tuple(_step(s) for s in data["steps"]),
                "environment": data["environment"] and Environment(**data["environment"]),
            }
        )


def _batching(data: dict[str, Any]) -> DynamicBatching:
    policies = {int(level): QueuePolicy(**policy) for level, policy in data["policies"].items()}
    preferred = tuple(data["preferred_batch_size"])
    return DynamicBatching(**{**data, "preferred_batch_size": preferred, "policies": policies})


def _instance(data: dict[str, Any]) -> Instance:
    return Instance(**{**data, "resources": tuple(Resource(**resource) for resource in data["resources"])})


def _step(data: dict[str, Any]) -> EnsembleStep:
    inputs, outputs = ([(str(name), str(tensor)) for name, tensor in data[key]] for key in ("inputs", "outputs"))
    return EnsembleStep(**{**data, "inputs": tuple(inputs), "outputs": tuple(outputs)})


def _tensor(data: dict[str, Any]) -> TensorSpec:
    dims, reshape, padding = data["dims"], data["reshape"], data["padding"]
    return TensorSpec(
        **{
            **data,
            "dims": None if dims is None else tuple(dims),
            "reshape": None if reshape is None else tuple(reshape),
            "labels": tuple(data["labels"]),
            "padding": padding and Padding(padding["axis"], tuple(padding["buckets"])),
        }
    )

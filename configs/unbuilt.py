"""Fields of a model's configuration that this server does not act on: refused, or warned about when only hints.

Refused is what would change an answer or its order if it were ignored.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from configs.backend_settings import BACKENDS
from configs.tree import Node, Position


class Unbuilt(NamedTuple):
    """A field that is set to something other than its default."""

    position: Position
    field: str

    def refusal(self, model: str) -> str:
        return (
            f"{self.position}: '{self.field}' of model '{model}' is not built yet, and is refused because ignoring it "
            "would change answers"
        )

    def hint(self, model: str) -> str:
        return f"{self.position}: '{self.field}' of model '{model}' has no effect here"


RUNTIMES = {"pytorch": ("model.py",)}
"""What a backend may be asked to run a model with, besides what it always does."""

_REFUSED_BUT_OF = {"model_operations": ("onnxruntime",)}
_HINTS = ("optimization",)
_OPTIMIZED = {"onnxruntime": ("graph", "execution_accelerators"), "tensorrt": ("cuda",)}
"""The fields of `optimization` that count for a backend."""
_HINTS_OF_ENSEMBLES = ("max_inflight_requests",)
_REFUSED_OF_GROUPS = ("passive", "secondary_devices")


def refused(config: Node) -> Iterator[Unbuilt]:
    """What has to be refused in a ModelConfig."""
    backend = config.get("backend")
    own = ("model.py",) if backend not in BACKENDS else RUNTIMES.get(backend, ())  # first, of Python-based backends
    if config.get("runtime") not in ("", *own, f"libtriton_{backend}.so"):
        yield Unbuilt(config.at("runtime"), "runtime")
    for group in config.get("instance_group"):
        yield from _set(group, _REFUSED_OF_GROUPS)


def refused_of(config: Node, backend: str) -> Iterator[Unbuilt]:
    """What has to be refused as well in a model of this backend."""
    yield from _set(config, [name for name, backends in _REFUSED_BUT_OF.items() if backend not in backends])


def refused_on_gpu(config: Node) -> Iterator[Unbuilt]:
    """What has to be refused as well when the model has instances on a GPU."""
    yield from _set(config, ("cc_model_filenames",))


def hints(config: Node, backend: str) -> Iterator[Unbuilt]:
    """What a ModelConfig says that changes no answer, and is ignored."""
    optimization: Node | None = config.get("optimization")
    if optimization is not None and backend in _OPTIMIZED:
        yield from _set(optimization, [name for name in optimization.fields if name not in _OPTIMIZED[backend]])
    else:
        yield from _set(config, _HINTS)
    scheduling: Node | None = config.get("ensemble_scheduling")
    if scheduling is not None:
        yield from _set(scheduling, _HINTS_OF_ENSEMBLES)


def _set(node: Node, names: Iterable[str]) -> Iterator[Unbuilt]:
    for name in names:
        if name in node and node.get(name) not in (0, "", (), {}, False, "REJECT"):
            yield Unbuilt(node.at(name), name)

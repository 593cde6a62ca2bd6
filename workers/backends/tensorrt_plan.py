"""What a TensorRT engine can execute, and what the configuration may say of it. Pure: no GPU, no TensorRT.

An engine has inputs and outputs, and optimisation profiles: for each input a range of shapes (of values, for shape
tensors). Execution contexts belong to a profile.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from workers.backends.signature import refuse, unexpected
from workers.completion import is_wanted, sized
from workers.model import ModelSpec, TensorSpec, data_type_of

DATATYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}
"""V2 datatypes by the names of `tensorrt.DataType`; others cannot be carried."""
GRAPH_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Batch sizes that get a CUDA graph where the dynamic batcher prefers none."""

Shape = tuple[int, ...]


class EngineTensor(NamedTuple):
    """One input or output; `dims` with the batch's, -1 for those of any size.

    A shape tensor's values decide shapes; it stays in the processor's memory.
    """

    name: str
    datatype: str
    dims: Shape
    is_input: bool
    is_shape: bool = False


class Range(NamedTuple):
    """The least, the best and the largest shape of an input, or values of a shape tensor."""

    least: Shape
    best: Shape
    most: Shape

    def holds(self, given: Shape) -> bool:
        """Whether it is in the range."""
        return len(given) == len(self.least) and all(
            low <= value <= high for low, value, high in zip(self.least, given, self.most, strict=True)
        )

    def distance(self, given: Shape) -> int:
        """How far it is from the best, dimension by dimension."""
        return sum(abs(value - best) for value, best in zip(given, self.best, strict=True))


class Profile(NamedTuple):
    """One optimisation profile: its number in the engine, and the range of each input."""

    number: int
    ranges: Mapping[str, Range]


class Engine(NamedTuple):
    """What an engine says of itself."""

    tensors: tuple[EngineTensor, ...]
    profiles: tuple[Profile, ...]

    @property
    def inputs(self) -> list[EngineTensor]:
        """What goes in."""
        return [tensor for tensor in self.tensors if tensor.is_input]

    @property
    def outputs(self) -> list[EngineTensor]:
        """What comes out."""
        return [tensor for tensor in self.tensors if not tensor.is_input]


def max_batch_size(engine: Engine) -> int:
    """The largest batch that some profile takes; 0 where the first dimension of an input is fixed."""
    inputs = [tensor for tensor in engine.inputs if not tensor.is_shape]
    if not inputs or any(tensor.dims[:1] != (-1,) for tensor in inputs):
        return 0
    return max(
        (min(profile.ranges[tensor.name].most[0] for tensor in inputs) for profile in engine.profiles), default=0
    )


def complete(model: ModelSpec, engine: Engine) -> dict[str, Any]:
    """What the engine completes in the configuration, in its JSON form. Raises BackendError."""
    largest = max_batch_size(engine)
    if model.max_batch_size > largest:
        raise refuse(
            f"autofill failed for model '{model.name}': configuration specified max-batch {model.max_batch_size} but "
            f"TensorRT engine only supports max-batch {largest}"
        )
    if not is_wanted(model) or (model.inputs and model.outputs):
        return {}
    size = model.max_batch_size or largest
    found = sized(model, size)
    for key, has_them, tensors in (
        ("input", model.inputs, engine.inputs),
        ("output", model.outputs, engine.outputs),
    ):
        if not has_them:
            found[key] = [_entry(tensor, size > 0) for tensor in tensors if tensor.name not in model.hidden]
    return found


def _entry(tensor: EngineTensor, is_batched: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": tensor.name, "data_type": data_type_of(tensor.datatype)}
    entry["dims"] = list(_own_dims(tensor, is_batched) or (1,))
    return entry | ({"is_shape_tensor": True} if tensor.is_shape else {})


def _own_dims(tensor: EngineTensor, is_batched: bool) -> Shape:
    """The dims without the batch's; a shape tensor of a model with batches has a value for the batch before its own."""
    if not is_batched:
        return tensor.dims
    if tensor.is_shape:
        return tuple(dim - 1 for dim in tensor.dims)
    return tensor.dims[1:]


def check(model: ModelSpec, engine: Engine) -> None:
    """The (completed) configuration must fit the engine. Raises BackendError."""
    for what, specs, tensors in (
        ("input", model.fed, engine.inputs),
        ("output", model.all_outputs, engine.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in tensors}
        for spec in specs:
            _check_tensor(model, what, spec, by_name)
    missing = sorted({tensor.name for tensor in engine.inputs} - {spec.name for spec in model.fed})
    if missing:
        raise refuse(f"model '{model.name}' does not configure the engine's input(s) {', '.join(missing)}")
    for tensor in engine.tensors:
        if not tensor.datatype:
            raise refuse(f"model '{model.name}': '{tensor.name}' has a datatype that requests cannot carry")


def _check_tensor(model: ModelSpec, what: str, spec: TensorSpec, by_name: Mapping[str, EngineTensor]) -> None:
    tensor = by_name.get(spec.name)
    if tensor is None:
        raise unexpected(what, spec.name, sorted(by_name))
    if spec.datatype != tensor.datatype:
        raise refuse(
            f"unexpected datatype {spec.data_type} for inference {what} '{spec.name}', expecting "
            f"{data_type_of(tensor.datatype)}"
        )
    own = _own_dims(tensor, model.max_batch_size > 0)
    if len(own) != len(spec.dims) or any(-1 not in (a, b) and a != b for a, b in zip(own, spec.dims, strict=True)):
        raise refuse(
            f"model '{model.name}', tensor '{spec.name}': the model expects {len(own)} dimensions (shape {list(own)}) "
            f"but the model configuration specifies {len(spec.dims)} dimensions (shape {list(spec.dims)})"
        )


def profiles_of(model: ModelSpec, engine: Engine) -> tuple[Profile, ...]:
    """The profiles that this instance's group names; the first one where it names none. Raises BackendError."""
    groups = model.config.get("instance_group", ())
    own = [group for group in groups if model.instance.startswith(f"{group.get('name')}_")]
    group: Mapping[str, Any] = max(own, key=lambda each: len(each["name"]), default={})
    chosen = []
    for text in group.get("profile") or ["0"]:
        if not text.isdecimal() or int(text) >= len(engine.profiles):
            raise refuse(
                f"instance '{model.instance}' asks for optimization profile '{text}', the engine of model "
                f"'{model.name}' has the profiles 0 to {len(engine.profiles) - 1}"
            )
        chosen.append(engine.profiles[int(text)])
    return tuple(chosen)


def pick(profiles: Sequence[Profile], given: Mapping[str, Shape]) -> Profile:
    """The profile whose best shapes are nearest among those that take these shapes (values, for shape tensors).

    Raises BackendError when there is none.
    """
    fitting = [p for p in profiles if all(p.ranges[name].holds(shape) for name, shape in given.items())]
    if not fitting:
        shown = "; ".join(
            f"profile {p.number}: " + ", ".join(f"{n} {list(r.least)} to {list(r.most)}" for n, r in p.ranges.items())
            for p in profiles
        )
        asked = ", ".join(f"{name} {list(shape)}" for name, shape in given.items())
        raise refuse(f"no optimization profile takes the request: {asked}; there are: {shown}")
    return min(fitting, key=lambda p: sum(p.ranges[name].distance(shape) for name, shape in given.items()))


def graph_batches(model: ModelSpec) -> frozenset[int]:
    """The batch sizes whose executions are recorded as CUDA graphs: none unless `optimization.cuda.graphs` is set."""
    cuda = model.config.get("optimization", {}).get("cuda", {})
    if not cuda.get("graphs"):
        return frozenset()
    asked = [int(spec.get("batch_size", 0)) for spec in cuda.get("graph_spec", ())]
    if asked:
        return frozenset(asked)
    if not model.max_batch_size:
        return frozenset({0})
    preferred = model.config.get("dynamic_batching", {}).get("preferred_batch_size", ())
    sizes = {1, *map(int, preferred)} if preferred else set(GRAPH_BATCHES)
    return frozenset(size for size in {*sizes, model.max_batch_size} if size <= model.max_batch_size)


def plugins(model: ModelSpec) -> list[str]:
    """The libraries of plugins that `--backend-config=tensorrt,plugins="a.so;b.so"` names."""
    return [path for path in model.settings.get("plugins", "").strip('"').split(";") if path]

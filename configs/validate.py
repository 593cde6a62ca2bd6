"""Checks of a ModelConfig as it stands in the text, with Triton's wording; each yields one line per problem."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from configs import sequences
from configs.tree import Node


def problems(config: Node, model: str) -> Iterator[str]:
    """What is wrong with a ModelConfig whose backend is known, apart from its instance groups."""
    if config.get("max_batch_size") < 0:
        yield f"{config.at('max_batch_size')}: 'max_batch_size' must be non-negative value for {model}"
    for what in ("input", "output"):
        tensor: Node
        for tensor in config.get(what):
            for position, text in _tensor_problems(tensor, config.get("max_batch_size")):
                yield f"{position}: model {what} {text} for {model}"
            yield from _tensorrt_only(tensor, model)
    for position, text in _batch_io_problems(config):
        yield f"{position}: {text} for {model}"
    batching: Node | None = config.get("dynamic_batching")
    if batching is not None:
        yield from _batching_problems(batching, config.get("max_batch_size"), model)
    yield from sequences.problems(config, model)
    metrics: Node | None = config.get("model_metrics")
    if metrics is not None:
        yield from _metrics_problems(metrics, model)


def _metrics_problems(metrics: Node, model: str) -> Iterator[str]:
    for control in metrics.get("metric_control"):
        options: Node | None = control.get("histogram_options")
        buckets: Sequence[float] = options.get("buckets") if options is not None else ()
        if options is not None and any(not low < high for low, high in pairwise(buckets)):
            yield f"{options.at('buckets')}: 'buckets' of 'model_metrics' must ascend for {model}"


def _tensor_problems(tensor: Node, max_batch_size: int) -> Iterator[tuple[object, str]]:
    name = tensor.get("name")
    if not name:
        yield tensor.position, "must specify 'name'"
    elif tensor.get("data_type") == "TYPE_INVALID":
        yield tensor.at("data_type"), f"'{name}' must specify 'data_type'"
    elif not tensor.get("dims"):
        yield tensor.at("dims"), f"'{name}' must specify 'dims'"
    else:
        yield from _shape_problems(tensor, f"'{name}'", max_batch_size)


def _shape_problems(tensor: Node, name: str, max_batch_size: int) -> Iterator[tuple[object, str]]:
    variable = "must be integer >= 1, or -1 to indicate a variable-size dimension"
    dims: Sequence[int] = tensor.get("dims")
    if not _allowed(dims):
        yield tensor.at("dims"), f"{name} dimension {variable}"
        return
    if tensor.descriptor.name == "ModelInput" and tensor.get("format") != "FORMAT_NONE" and len(dims) != 3:
        yield tensor.at("dims"), "NHWC/NCHW require 3 dims"
    if "reshape" not in tensor:
        return
    shape: Sequence[int] = tensor.get("reshape").get("shape")
    if not _allowed(shape):
        text = f"reshape dimensions {variable}"
    elif not shape and max_batch_size == 0:
        text = "cannot have empty reshape for non-batching model as scalar tensors are not supported"
    elif dims.count(-1) != shape.count(-1):
        text = "has different number of variable-size dimensions for dims and reshape"
    elif _runs(dims) != _runs(shape):
        text = "has different size for dims and reshape"
    else:
        return
    yield tensor.at("reshape"), f"{name} {text}"


def _allowed(dims: Sequence[int]) -> bool:
    return all(dim >= 1 or dim == -1 for dim in dims)


def _runs(dims: Sequence[int]) -> list[int]:
    """The element counts before, between and after the variable-size dimensions."""
    counts = [1]
    for variable, run in groupby(dims, key=lambda dim: dim == -1):
        if variable:
            counts += [1] * len(list(run))
        else:
            counts[-1] *= math.prod(run)
    return counts


def _tensorrt_only(tensor: Node, model: str) -> Iterator[str]:
    if tensor.get("is_shape_tensor"):
        yield f"{tensor.at('is_shape_tensor')}: shape tensors are only supported for TensorRT platform for {model}"
    if tensor.get("is_non_linear_format_io"):
        yield (
            f"{tensor.at('is_non_linear_format_io')}: Non-linear IO format is only supported for the TensorRT "
            f"platform for {model}"
        )


def _batch_io_problems(config: Node) -> Iterator[tuple[object, str]]:
    """What is wrong with the inputs and outputs of batches."""
    outputs = [output.get("name") for output in config.get("output")]
    made: list[str] = []
    for batch_input in config.get("batch_input"):
        yield from _source_problems(batch_input, "input", config)
        if batch_input.get("data_type") not in {"TYPE_INT32", "TYPE_FP32"}:
            yield batch_input.at("data_type"), "batch input data type must be TYPE_INT32 or TYPE_FP32"
    for batch_output in config.get("batch_output"):
        yield from _source_problems(batch_output, "output", config)
        if not batch_output.get("target_name"):
            yield batch_output.at("target_name"), "batch output must specify 'target_name'"
        for name in batch_output.get("target_name"):
            if name not in outputs:
                yield batch_output.at("target_name"), f"unknown target output name '{name}'"
            elif name in made:
                yield batch_output.at("target_name"), f"target output name '{name}' can only be specified once"
            made.append(name)


def _source_problems(batch_io: Node, what: str, config: Node) -> Iterator[tuple[object, str]]:
    sources: Sequence[str] = batch_io.get("source_input")
    inputs = [tensor.get("name") for tensor in config.get("input")]
    if len(sources) != 1:
        text = f"batch {what} kind '{batch_io.get('kind')}' expects 1 source input, got {len(sources)}"
        yield batch_io.at("source_input"), text
    for name in sources:
        if name not in inputs:
            yield batch_io.at("source_input"), f"unknown source input name '{name}'"


def _batching_problems(batching: Node, max_batch_size: int, model: str) -> Iterator[str]:
    for size in batching.get("preferred_batch_size"):
        at = batching.at("preferred_batch_size")
        if size <= 0:
            yield f"{at}: dynamic batching preferred size must be positive for {model}"
        elif size > max_batch_size:
            yield f"{at}: dynamic batching preferred size must be <= max batch size for {model}"

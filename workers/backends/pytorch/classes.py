"""A class in a `model.py`, with its weights in a file beside it: Triton's `runtime: "model.py"`."""

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, get_args, get_origin

import torch

from broker.messages import ErrorCode
from workers import isolation
from workers.backends.python import describe
from workers.backends.pytorch import arguments, results, weights
from workers.backends.pytorch.arguments import refuse
from workers.backends.pytorch.names import DICTIONARY, TENSOR, TENSORS, TEXTS, Argument
from workers.backends.pytorch.program import Order, Program, untyped
from workers.errors import BackendError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def load(order: Order) -> Program:
    """Import the file, make an instance of the class and give it its weights."""
    isolation.make_room([str(order.path.parent), str(order.model.directory)])
    try:
        found = isolation.import_file(order.path, str(order.model.version))
    except BaseException as error:
        raise _failed(order, error) from error
    return of_module(order, found)


def of_module(order: Order, found: ModuleType) -> Program:
    """The program that a file's module holds."""
    model = order.model
    if not model.outputs:
        raise refuse(model, "model configuration must contain at least one output, none were specified.")
    model_class = choose(order, found)
    try:
        module = model_class()
    except BaseException as error:
        raise _failed(order, error) from error
    file = weights.beside(order.path)
    if file is not None:
        _give(order, module, file)
    module.eval()
    if order.plan.device:
        module.to(order.plan.device)
    first = next(module.parameters(), None)
    device = order.plan.device or ("" if first is None else str(first.device))
    given, is_open = parameters(module.forward)
    bound = arguments.signature(model, given, order.warn, is_open)
    options = order.settings.compile
    function = module if options is None else torch.compile(module, **options)
    inputs = untyped(() if model.inputs else bound.inputs)
    return Program(function, bound.arguments, results.declared(model, has_keys=True), inputs, (), device)


def choose(order: Order, found: ModuleType) -> Any:
    """The first class of a file, by name, that is a Module: one of its own, else one that it imports."""
    classes = [value for _, value in inspect.getmembers(found, inspect.isclass) if issubclass(value, torch.nn.Module)]
    own = [c for c in classes if c.__module__ == found.__name__]
    if not classes:
        raise refuse(order.model, f"cannot find a subclass of torch.nn.Module in '{order.path}'")
    if len(own) > 1:
        names = ", ".join(c.__name__ for c in own)
        order.warn(f"'{order.path}' has several classes: {names}; the model is the first of them")
    return (own or classes)[0]


def parameters(forward: Any) -> tuple[list[Argument], bool]:
    """The arguments of a method, and whether it takes any number more of them."""
    found = inspect.signature(forward, eval_str=True).parameters.values()
    bound = [
        Argument(p.name, _kind(p.annotation), p.default is not p.empty)
        for p in found
        if p.kind in (*_POSITIONAL, p.KEYWORD_ONLY)
    ]
    return bound, any(p.kind == p.VAR_POSITIONAL for p in found)


def _kind(annotation: Any) -> str:
    """What an argument takes: tensors unless its annotation says strings, a list or a dictionary."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if not isinstance(origin, type):
        return TENSOR
    if issubclass(origin, Mapping):
        return DICTIONARY
    if issubclass(origin, Sequence) and inner:
        return TEXTS if inner[0] is str else TENSORS
    return TENSOR


def _give(order: Order, module: Any, file: Any) -> None:
    try:
        weights.load(module, file)
    except BackendError:
        raise
    except Exception as error:
        text = str(error).partition("\nException raised from")[0]
        raise BackendError(
            ErrorCode.INTERNAL, f"failed to load model '{order.model.name}' from '{file}': {text}"
        ) from error


def _failed(order: Order, error: BaseException) -> BackendError:
    return BackendError(
        ErrorCode.INTERNAL, f"failed to load model '{order.model.name}' from '{order.path}': {describe(error)}"
    )

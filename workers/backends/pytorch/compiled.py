"""Packages of AOTInductor: programs compiled to machine code, by `torch._inductor.aoti_compile_and_package`."""

import os
from typing import Any

import torch
import torch._inductor
from torch.utils import _pytree as pytree

from workers.backends.pytorch import trees
from workers.backends.pytorch.arguments import refuse
from workers.backends.pytorch.program import Order, Program, untyped


def load(order: Order) -> Program:
    """Load the machine code, which knows how many tensors it takes and gives but not which."""
    model = order.model
    os.environ.setdefault("AOTI_RUNTIME_CHECK_INPUTS", "1")  # else it reads beyond tensors that are too small
    package = torch._inductor.aoti_load_package(str(order.path))
    made_for = package.loader.get_metadata().get("AOTI_DEVICE_KEY", "")
    device = order.plan.device.partition(":")[0]
    if made_for and device and made_for != device:
        raise refuse(model, f"it was compiled for '{made_for}', but instance '{model.instance}' has KIND_{model.kind}")
    arguments, results = (pytree.treespec_loads(text) for text in package.loader.get_call_spec())
    bound = trees.bind(order, trees.Trees(arguments, results, {}, ()))
    return Program(
        trees.flat(_checked(package)),
        bound.arguments,
        trees.wanted(order, bound),
        untyped(() if model.inputs else list(bound.inputs)),
        untyped(() if model.outputs else list(bound.outputs)),
        order.plan.device or ("cuda:0" if made_for == "cuda" else ""),
    )


def _checked(package: Any) -> Any:
    """The package's call. It takes whatever number of tensors for its arguments: all must be there."""

    def call(*positional: Any, **keyword: Any) -> Any:
        if not all(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves((positional, keyword))):
            raise TypeError("a compiled model takes tensors only, and all of its inputs")
        try:
            return package(*positional, **keyword)
        except RuntimeError as error:
            raise RuntimeError(explained(str(error))) from error

    return call


def explained(text: str) -> str:
    """An error's text, with the remedy where packages are compiled for sizes from 2 on unless told otherwise."""
    if "dim value is too small" not in text:
        return text
    return (
        f"{text.strip()}. Compile the package with inductor_configs={{'aot_inductor.check_lowerbound': False}} to let "
        "sizes of 1 pass its checks"
    )

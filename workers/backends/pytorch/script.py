"""TorchScript: a module with its own code, saved by `torch.jit.save`."""

from collections.abc import Sequence
from typing import Any

import torch

from workers.backends.pytorch import arguments, results, sharing
from workers.backends.pytorch.arguments import refuse
from workers.backends.pytorch.names import Argument
from workers.backends.pytorch.program import Order, Program, untyped


def load(order: Order) -> Program:
    """Load the module; bind its arguments and results to names."""
    model = order.model
    module = torch.jit.load(str(order.path), map_location=order.plan.location)
    if order.settings.shares_weights:
        shared = sharing.share([*module.parameters(), *module.buffers()], order.path)
        order.log("I", f"model '{model.name}' shares {shared} bytes of weights with its other instances")
    schema = module.forward.schema
    found = [Argument(a.name, _kind(a.type), a.has_default_value()) for a in schema.arguments[1:]]
    bound = arguments.signature(model, found, order.warn)
    returned = schema.returns[0].type
    if model.outputs:
        outputs = results.declared(model, has_keys=returned.kind() == "DictType")
        names: list[str] = []
    else:
        outputs = results.unnamed(_count(order, returned))
        names = [output.name for output in outputs]
    return Program(
        module,
        bound.arguments,
        outputs,
        untyped(() if model.inputs else bound.inputs),
        untyped(names),
        order.plan.device,
    )


def _kind(of: Any) -> str:
    """An argument's type, less that it may be left out."""
    return str((of.getElementType() if of.kind() == "OptionalType" else of).annotation_str)


def _count(order: Order, returned: Any) -> int:
    """How many values a result of this type holds."""
    match returned.kind():
        case "TupleType":
            elements: Sequence[Any] = returned.elements()
            return sum(_count(order, element) for element in elements)
        case "DictType":
            raise refuse(
                order.model,
                "model configuration must contain at least one output, none were specified: "
                "they are the keys of the dictionary that the model returns",
            )
        case "ListType" if returned.getElementType().kind() != "StringType":
            raise refuse(
                order.model,
                "model configuration must contain at least one output, none were specified: "
                "how many tensors the model returns is not known before it runs",
            )
        case _:
            return 1

"""PyTorch 2's exported programs: a graph with typed inputs and outputs, saved by `torch.export.save`."""

from typing import Any

import torch
import torch.export
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from broker.messages import ErrorCode
from workers.backends.pytorch import archive, sharing, trees, typed
from workers.backends.pytorch.archive import Format
from workers.backends.pytorch.arguments import refuse
from workers.backends.pytorch.program import Order, Program
from workers.backends.pytorch.tensors import DATATYPES
from workers.backends.pytorch.typed import Tensor
from workers.errors import BackendError


def load(order: Order) -> Program:
    """Load the graph, and check the configuration against it."""
    model = order.model
    if archive.found_in(order.path) != Format.EXPORTED:  # what PyTorch says of it would be no help
        raise ValueError("it is no archive of torch.export.save, or not all of one")
    exported = torch.export.load(order.path)
    if order.plan.device.startswith("cuda"):
        exported = torch.export.passes.move_to_device_pass(exported, order.plan.device)
    inputs, constants = _inputs(order, exported)
    outputs = _outputs(exported)
    spec = exported.call_spec
    bound = trees.bind(order, trees.Trees(spec.in_spec, spec.out_spec, constants, [tensor.name for tensor in inputs]))
    given = {name: inputs[index]._replace(name=name) for name, index in bound.inputs.items()}
    taken = {name: outputs[place]._replace(name=name) for name, place in bound.outputs.items()}
    for tensor in (*given.values(), *taken.values()):
        if not tensor.datatype:
            raise BackendError(ErrorCode.UNSUPPORTED, f"unsupported datatype for '{tensor.name}' of '{model.name}'")
    for declared in model.fed if model.inputs else ():
        typed.check(model, "input", declared, given[declared.name])
    for declared in model.all_outputs if model.outputs else ():
        typed.check(model, "output", declared, taken[declared.name])
    module = exported.module()
    if order.settings.shares_weights:
        shared = sharing.share([*module.parameters(), *module.buffers()], order.path)
        order.log("I", f"model '{model.name}' shares {shared} bytes of weights with its other instances")
    return Program(
        trees.flat(module),
        bound.arguments,
        trees.wanted(order, bound),
        [] if model.inputs else [typed.declared(model, "input", tensor) for tensor in given.values()],
        [] if model.outputs else [typed.declared(model, "output", tensor) for tensor in taken.values()],
        order.plan.device,
    )


def _inputs(order: Order, exported: Any) -> tuple[list[Tensor], dict[int, Any]]:
    """The tensors among the arguments, and the values of the other leaves, which the export has fixed."""
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    tensors, constants = [], {}
    user = [spec.arg for spec in exported.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    for leaf, argument in enumerate(user):
        if isinstance(argument, ConstantArgument):
            constants[leaf] = argument.value
        elif isinstance(values.get(argument.name), torch.Tensor):
            tensors.append(_tensor(exported, argument.name, values[argument.name]))
        else:
            raise refuse(order.model, f"argument '{argument.name}' is a number, but only tensors are supported")
    return tensors, constants


def _outputs(exported: Any) -> list[Tensor]:
    """What the program returns; a result that is no tensor has no datatype."""
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    user = [spec.arg for spec in exported.graph_signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
    found = [(argument.name, values.get(argument.name)) for argument in user]
    return [_tensor(exported, n, v) if isinstance(v, torch.Tensor) else Tensor(n, "", ()) for n, v in found]


def _tensor(exported: Any, name: str, value: Any) -> Tensor:
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in value.shape)
    return Tensor(name, DATATYPES.get(value.dtype, ""), dims, _most(exported, value) if dims[:1] == (-1,) else 0)


def _most(exported: Any, value: Any) -> int:
    """The largest size of the first dimension that the export allows, 0: any."""
    limits = exported.range_constraints.get(value.shape[0].node.expr)
    try:
        return int(limits.upper) if limits is not None else 0
    except (OverflowError, TypeError, ValueError):
        return 0  # infinite

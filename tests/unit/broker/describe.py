"""What tests of the broker say about models and requests, in few words."""

from typing import Any

from broker.messages import Infer
from configs.description import DynamicBatching, Instance, ModelDescription, TensorSpec
from shm.ref import TensorRef


def instances(model: str, count: int, signature: str = "cpu", group: int = 0) -> tuple[Instance, ...]:
    """One instance group."""
    return tuple(Instance(f"{model}_{group}_{i}", "KIND_CPU", "", "", signature) for i in range(count))


def description(name: str = "m", **changes: Any) -> ModelDescription:
    """A model with one FP32 input and output of shape [-1]; `count` and `batching` are short for their fields."""
    count, batching = changes.pop("count", 1), changes.pop("batching", None)
    fields: dict[str, Any] = {
        "name": name,
        "path": f"/models/{name}",
        "backend": "python",
        "platform": "",
        "versions": (1,),
        "max_batch_size": 8 if batching is not None else 0,
        "inputs": (TensorSpec("IN", "FP32", (-1,)),),
        "outputs": (TensorSpec("OUT", "FP32", (-1,)),),
        "instances": instances(name, count),
        "dynamic_batching": batching,
        "decoupled": False,
        "parameters": {},
        "config": {"name": name},
        "fingerprint": "a",
        **changes,
    }
    return ModelDescription(**fields)


def batching(*preferred: int, delay: float = 0.0, ordered: bool = False) -> DynamicBatching:
    """A `dynamic_batching` block; `delay` in seconds."""
    return DynamicBatching(preferred or (8,), delay, ordered)


def tensor(name: str, datatype: str, shape: tuple[int, ...], byte_size: int) -> TensorRef:
    """An input of `byte_size` bytes that lies somewhere."""
    return TensorRef(name, datatype, shape, byte_size, None, "tidepool-s-f-0")


def infer(number: int, model: str = "m", shape: tuple[int, ...] = (4,), **changes: Any) -> Infer:
    """A request to a model of `description`."""
    elements = 1
    for dim in shape:
        elements *= dim
    fields: dict[str, Any] = {
        "request": number,
        "model": model,
        "version": -1,
        "request_id": "",
        "inputs": (tensor("IN", "FP32", shape, 4 * elements),),
        "outputs": (),
        "parameters": {},
        "correlation_id": 0,
        "flags": 0,
        "priority": 0,
        "timeout_us": 0,
        "is_raw": False,
        "received": 0.0,
        **changes,
    }
    return Infer(**fields)

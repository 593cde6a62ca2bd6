"""What has been found out about a model without a configuration, in words. Pure."""

from collections.abc import Iterable

from broker.models import Version
from configs.description import TensorSpec


def told(version: Version) -> str:
    """Backend, file, inputs, outputs and batching of a version that is loaded."""
    description, signature = version.description, version.signature
    file = description.config.get("default_model_filename", "")
    backend = f"{description.backend} ({file})" if file else description.backend
    batching = ", joined by the dynamic batcher" if description.dynamic_batching is not None else ""
    size = signature.max_batch_size
    batches = f"batches of up to {size}{batching}" if size else "no batch dimension"
    return (
        f"model '{version.model}' version {version.number} has no configuration; inferred: backend {backend}, "
        f"inputs {_tensors(signature.inputs)}, outputs {_tensors(signature.outputs)}, {batches}"
    )


def _tensors(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(f"{s.name} {s.datatype or 'of any type'} {_shape(s)}" for s in specs) or "of any kind"


def _shape(spec: TensorSpec) -> str:
    return "of any shape" if spec.dims is None else f"{[*spec.dims]}"

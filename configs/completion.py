"""What a model says of itself when it is loaded, applied to its description."""

import json
from dataclasses import replace
from typing import Any

from configs import override, sequences
from configs.description import ModelDescription
from configs.errors import ConfigError
from configs.model import dynamic_batching
from configs.proto.schema import message
from configs.tree import as_json

FIELDS = ("max_batch_size", "input", "output", "dynamic_batching", "model_transaction_policy")
"""The fields of a ModelConfig that a model may complete."""


def complete(description: ModelDescription, found: dict[str, Any]) -> ModelDescription:
    """The description with these fields (ModelConfig's JSON form) in place of its own.

    The tensors stay as they are described; only the reported configuration shows those that were found. A batcher that
    is configured stays as it is. Raises ConfigError.
    """
    given = {name: found[name] for name in FIELDS if name in found}
    if "dynamic_batching" in description.config:
        given.pop("dynamic_batching", None)
    try:
        text = json.dumps(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"what model '{description.name}' says of itself is no configuration: {error}") from None
    normal = as_json(override.from_json(text, description.name))
    form = {"max_batch_size": 0, **description.config, **{name: normal[name] for name in given if name in normal}}
    fields = message("inference.ModelConfig").fields
    batching = form.get("dynamic_batching")
    if form["max_batch_size"] < 0:
        raise ConfigError(f"'max_batch_size' must be non-negative value for model '{description.name}'")
    if batching is not None and not batching["preferred_batch_size"] and form["max_batch_size"] > 0:
        form["dynamic_batching"] = {**batching, "preferred_batch_size": [form["max_batch_size"]]}
    sequences.normalise(form)
    return replace(
        description,
        max_batch_size=form["max_batch_size"],
        dynamic_batching=dynamic_batching(form),
        sequence_batching=sequences.read(form),
        decoupled=form.get("model_transaction_policy", {}).get("decoupled", False),
        config={field.name: form[field.name] for field in fields if field.name in form},
    )

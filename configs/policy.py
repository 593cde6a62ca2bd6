"""What a model's `parameters` say about its scheduling beyond Triton: keys of batches, padding, tenants."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from configs import residency
from configs.description import Padding, Tenants

PAD_VALUE, PAD_BUCKETS, WEIGHT = "pad_value.", "pad_buckets.", "tenant_weight."
BATCH_KEY, TENANT_KEY = "batch_key", "tenant_key"
_OF_THE_BROKER = {BATCH_KEY, TENANT_KEY, "execution_timeout_ms", "retry_on_crash"}
_WEIGHTS = (0.001, 1000.0)
_INTEGER = re.compile("TYPE_(U?)INT([0-9]+)")


def is_the_brokers(parameter: str) -> bool:
    """Whether the server reads this parameter and the model's workers do nothing by it."""
    return parameter in _OF_THE_BROKER or parameter.startswith(WEIGHT)


def tenants(parameters: Mapping[str, str]) -> Tenants | None:
    """Who shares the model, None when nobody asks. Raises ValueError."""
    weights = {name: _weight(text, name) for name, text in _prefixed(parameters, WEIGHT)}
    key = parameters.get(TENANT_KEY, "")
    if weights and not key:
        raise ValueError(
            f"'{WEIGHT}{next(iter(weights))}' needs '{TENANT_KEY}', which says how requests name their tenant"
        )
    return Tenants(key, weights) if key else None


def paddings(form: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, Padding]:
    """How inputs of a normalised configuration are padded, by name. Raises ValueError."""
    values, buckets = (dict(_prefixed(parameters, prefix)) for prefix in (PAD_VALUE, PAD_BUCKETS))
    found: dict[str, Padding] = {}
    for name in {**values, **buckets}:
        tensor = next((tensor for tensor in form["input"] if tensor["name"] == name), None)
        if tensor is None:
            raise ValueError(f"there is no input '{name}' to pad")
        if form["max_batch_size"] < 1:
            raise ValueError(f"input '{name}' cannot be padded: the model has no batches (max_batch_size is 0)")
        if tensor["dims"].count(-1) != 1 or "reshape" in tensor or tensor.get("allow_ragged_batch"):
            raise ValueError(
                f"input '{name}' cannot be padded: it needs exactly one dimension of any size (-1), no reshape and no "
                "allow_ragged_batch"
            )
        _check_value(values.get(name, ""), tensor["data_type"], name)
        found[name] = Padding(1 + tensor["dims"].index(-1), _buckets(buckets.get(name, ""), name))
    return found


def problems(form: Mapping[str, Any], parameters: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with them."""
    try:
        paddings(form, parameters)
    except ValueError as error:
        yield str(error)
    yield from residency.problems(form, parameters)
    try:
        is_shared = tenants(parameters) is not None
    except ValueError as error:
        yield str(error)
    else:
        if is_shared and form.get("dynamic_batching", {}).get("preserve_ordering"):
            yield f"'{TENANT_KEY}' and 'preserve_ordering' contradict each other: answers would wait for others'"


def _prefixed(parameters: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    for key, text in parameters.items():
        if key.startswith(prefix) and key != prefix:
            yield key.removeprefix(prefix), text


def _weight(text: str, name: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    low, high = _WEIGHTS
    if not low <= weight <= high:
        raise ValueError(f"'{WEIGHT}{name}' is '{text}', must be a number from {low:g} to {high:g}")
    return weight


def _buckets(text: str, name: str) -> tuple[int, ...]:
    if not text:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[1-9][0-9]{0,9}", word) for word in words):
        raise ValueError(f"'{PAD_BUCKETS}{name}' is '{text}', expected sizes such as '16, 32, 64'")
    return tuple(sorted({int(word) for word in words}))


def _check_value(text: str, data_type: str, name: str) -> None:
    if not text or data_type == "TYPE_STRING":
        return
    integer = _INTEGER.fullmatch(data_type)
    if integer:
        bits = int(integer[2])
        low, high = (0, 2**bits - 1) if integer[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        is_fine = re.fullmatch("-?[0-9]{1,20}", text) is not None and low <= int(text) <= high
    elif data_type in {"TYPE_FP16", "TYPE_FP32", "TYPE_FP64"}:
        is_fine = re.fullmatch(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e-?[0-9]{1,3})?|-?inf|nan", text.lower()) is not None
    else:
        is_fine = text in {"0", "1"} if data_type == "TYPE_BOOL" else text == "0"
    if not is_fine:
        raise ValueError(f"'{PAD_VALUE}{name}' is '{text}', which is no {data_type}")

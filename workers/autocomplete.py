"""`ModelConfig`: what a Python model's `auto_complete_config` fills in."""

from typing import Any

_SCHEDULERS = ("sequence_batching", "ensemble_scheduling")


class ModelConfig:
    """A model configuration in its JSON form. All errors are ValueErrors, in Triton's words."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config` is changed in place."""
        self._config = config
        self._model = config.get("name", "")

    def as_dict(self) -> dict[str, Any]:
        """The configuration itself."""
        return self._config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Raise the maximum batch size."""
        current = self._config.get("max_batch_size", 0)
        if current > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {current}, but in auto-complete-config function for model "
                f"'{self._model}' specified max_batch_size {max_batch_size}"
            )
        self._config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Ask for the dynamic batcher."""
        for scheduler in _SCHEDULERS:
            if scheduler in self._config:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{scheduler}', but auto-complete-config function "
                    f"for model '{self._model}' tries to set scheduling_choice as 'dynamic_batching'"
                )
        self._config.setdefault("dynamic_batching", {})

    def add_input(self, tensor: dict[str, Any]) -> None:
        """Declare an input, or complete one that is there."""
        self._add("input", tensor, ("name", "data_type", "dims", "optional"))

    def add_output(self, tensor: dict[str, Any]) -> None:
        """Declare an output, or complete one that is there."""
        self._add("output", tensor, ("name", "data_type", "dims"))

    def set_model_transaction_policy(self, policy: dict[str, Any]) -> None:
        """Say whether the model is decoupled."""
        if set(policy) - {"decoupled"}:
            raise ValueError(
                "model transaction property in auto-complete-config function for model "
                f"'{self._model}' contains property other than 'decoupled'."
            )
        current = self._config.get("model_transaction_policy")
        if current is None:
            self._config["model_transaction_policy"] = policy
        elif current.get("decoupled", False) != policy.get("decoupled", False):
            raise ValueError(
                f"trying to change decoupled property in auto-complete-config for model '{self._model}', which is "
                f"already set to '{current.get('decoupled', False)}'."
            )

    def _add(self, kind: str, tensor: dict[str, Any], allowed: tuple[str, ...]) -> None:
        self._check_properties(kind, tensor, allowed)
        for current in self._config.setdefault(kind, []):
            if current["name"] == tensor["name"]:
                self._merge(kind, current, tensor)
                return
        self._config[kind].append(dict(tensor))

    def _check_properties(self, kind: str, tensor: dict[str, Any], allowed: tuple[str, ...]) -> None:
        place = f"auto-complete-config function for model '{self._model}'"
        if set(tensor) - set(allowed):
            names = ", ".join(f"'{a}'" for a in allowed[:-1]) + f" and '{allowed[-1]}'"
            raise ValueError(f"{kind} '{tensor.get('name', '')}' in {place} contains property other than {names}.")
        if "name" not in tensor:
            raise ValueError(f"{kind} in {place} is missing 'name' property.")
        for key in ("data_type", "dims"):
            if key not in tensor:
                raise ValueError(f"{kind} '{tensor['name']}' in {place} is missing '{key}' property.")

    def _merge(self, kind: str, current: dict[str, Any], given: dict[str, Any]) -> None:
        model, name = self._model, given["name"]
        data_type = current.get("data_type", "TYPE_INVALID")
        if data_type not in {"TYPE_INVALID", given["data_type"]}:
            raise ValueError(
                f"unable to load model '{model}', configuration expects datatype {data_type} for {kind} '{name}', "
                f"model provides {given['data_type']}"
            )
        current["data_type"] = given["data_type"]
        dims = [int(d) for d in current.get("dims", [])]
        if dims and dims != list(given["dims"]):
            raise ValueError(
                f"model '{model}', tensor '{name}': the model expects dims {given['dims']} but the model configuration "
                f"specifies dims {dims}"
            )
        current["dims"] = given["dims"]
        if "optional" not in given:
            return
        if current.get("optional", given["optional"]) != given["optional"]:
            raise ValueError(
                f"model '{model}', tensor '{name}': the model expects optional {given['optional']} but the model "
                f"configuration specifies optional {current['optional']}"
            )
        current["optional"] = given["optional"]

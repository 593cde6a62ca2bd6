"""The servers that golden cases are recorded from and replayed against: models and flags, the same on both sides."""

import shutil
from pathlib import Path
from typing import NamedTuple

MODELS = Path(__file__).parent / "models"
CODE = {
    "counted_hits": "numbered",
    "holder": "turns",
    "hurried": "turns",
    "in_order": "gathered",
    "oldest_sums": "sums",
    "outer": "caller",
    "uneven": "gathered",
    "waiter": "turns",
}
"""Models that are others in another configuration, by whose code they have."""


class Configuration(NamedTuple):
    """One server: the models of its repository, and flags with `{directory}` for a directory of its own."""

    models: tuple[str, ...]
    flags: tuple[str, ...] = ()

    def write(self, directory: Path) -> Path:
        """Copy the models into a repository under `directory`, which is returned."""
        repository = directory / "model_repository"
        repository.mkdir(parents=True, exist_ok=True)
        for model in self.models:
            shutil.copytree(MODELS / model, repository / model, ignore=shutil.ignore_patterns("__pycache__"))
            if model in CODE:
                shutil.copytree(
                    MODELS / CODE[model] / "1", repository / model / "1", ignore=shutil.ignore_patterns("__pycache__")
                )
        return repository

    def flags_in(self, directory: Path) -> list[str]:
        """The flags of the server that runs in `directory`."""
        return [flag.format(directory=directory) for flag in self.flags]


CONFIGURATIONS = {
    "core": Configuration(
        (
            "add_sub",
            "add_sub_int32",
            "auto",
            "batched_bytes",
            "counted",
            "errors",
            "identity_bytes",
            "identity_fp32",
            "matrix",
            "optional",
            "parameters",
            "reshape",
            "types",
            "versions",
        )
    ),
    "decoupled": Configuration(("add_sub", "repeat")),
    "fragile": Configuration(("dies",)),
    "queues": Configuration(("delaying", "impatient", "ranked", "short_queue", "turns")),
    "batches": Configuration(("gathered", "in_order", "uneven", "warmed")),
    "calls": Configuration(
        ("caller", "counted_hits", "doubler", "gatherer", "numbered", "outer", "repeat", "repeat_pipeline"),
        ("--cache-config=local,size=1048576",),
    ),
    "examples": Configuration(("measured", "scorer", "text_pipeline", "tokenizer", "whoami")),
    "limited": Configuration(("holder", "hurried", "waiter"), ("--rate-limit=execution_count",)),
    "sequences": Configuration(("controls", "named_sums", "oldest_sums", "steps", "sums")),
    "ensembles": Configuration(("add_sub", "errors", "failing_pipeline", "pipeline")),
    "explicit": Configuration(
        ("add_sub", "add_sub_int32", "broken", "identity_fp32"),
        ("--model-control-mode=explicit", "--load-model=add_sub"),
    ),
    "guarded": Configuration(
        ("add_sub", "parameters"),
        (
            "--id=guarded",
            "--http-header-forward-pattern=x-golden-.*",
            "--grpc-header-forward-pattern=x-golden-.*",
            "--http-restricted-api=statistics,model-config:admin=secret",
            "--http-restricted-api=trace:tracer=yes",
            "--grpc-restricted-protocol=statistics,model-config:admin=secret",
            "--grpc-restricted-protocol=shared-memory:memory=yes",
        ),
    ),
    "traced": Configuration(
        ("add_sub", "identity_fp32"),
        ("--trace-config=triton,file={directory}/trace.json", "--trace-config=level=OFF"),
    ),
}

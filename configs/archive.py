"""Models out of archives that a platform has unpacked: where they may lie, and which directory is the model's."""

import os
from collections.abc import Sequence
from pathlib import Path

from configs import layout
from configs.errors import ConfigError, one_line

SAGEMAKER = Path("/opt/ml/models")
"""Where SageMaker unpacks the models of a multi-model endpoint."""


def model_directory(archive: str, repositories: Sequence[Path]) -> Path:
    """The model's directory: the only one in the archive, or the archive itself where it has the versions.

    Raises ConfigError, also for an archive that is neither SageMaker's nor in one of the repositories.
    """
    directory = Path(archive)
    if not archive or "\0" in archive:
        raise ConfigError(f"failed to register '{one_line(archive)}', repository not found")
    real, *roots = (os.path.realpath(path) for path in (directory, SAGEMAKER, *repositories))
    if not any(Path(real).is_relative_to(root) for root in roots):
        raise ConfigError(f"failed to register '{archive}', it lies outside {SAGEMAKER} and the model repository")
    if not directory.is_dir():
        raise ConfigError(f"failed to register '{archive}', repository not found")
    if (directory / "config.pbtxt").is_file() or layout.version_directories(directory)[0]:
        return directory
    found = layout.list_models([directory])
    if len(found.directories) != 1:
        names = ", ".join(sorted({*found.directories, *found.errors})) or "none"
        raise ConfigError(f"an archive holds the directory of one model, '{archive}' has: {names}")
    (model,) = found.directories.values()
    return model

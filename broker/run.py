"""`python -m broker run MODEL_DIR`: execute a model in the foreground, without a server.

Reads the configuration as the server does and becomes `workers.foreground`, which does the rest.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from broker.fleet import load_message
from broker.gpus import visible_gpus
from configs import server as settings
from configs.errors import ConfigError
from configs.model import describe

_PROGRAM = "workers.foreground"


def main(arguments: Sequence[str]) -> int:
    """Become the worker; returns (1) only when that cannot be. Raises ConfigError, OSError."""
    parser = argparse.ArgumentParser(
        prog="python -m broker run", description="Execute a model once, in the foreground, without a server."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="the model's directory")
    parser.add_argument("--input", default="", metavar="FILE.npz", help="inputs by name; without it it is only loaded")
    parser.add_argument("--output", default="", metavar="FILE.npz", help="where the outputs are kept")
    parser.add_argument("--replay", default="", metavar="FILE.json", help="a request that the server has recorded")
    parser.add_argument("--version", type=int, metavar="N", help="the version; default: the highest that is served")
    parser.add_argument("--config", default="", metavar="FILE", help="the server's configuration (server.pbtxt)")
    given = parser.parse_args(arguments)
    if given.input and given.replay:
        parser.error("--input and --replay exclude each other")
    for file in (given.input, given.replay):
        if file and not os.path.isfile(file):
            parser.error(f"there is no file '{file}'")
    directory = Path(os.path.abspath(given.model))
    if not directory.is_dir():
        parser.error(f"there is no directory '{given.model}'")
    flags = [f"--config={given.config}"] if given.config else []
    config = replace(settings.load([*flags, f"--model-repository={directory.parent}"]), record="")
    description = describe(directory, config.entries.get(directory.name), config, visible_gpus())
    version = description.versions[-1] if given.version is None else given.version
    if not (directory / str(version)).is_dir():
        raise ConfigError(f"model '{description.name}' has no version {version}")
    if not description.instances:
        raise ConfigError(f"model '{description.name}' is an ensemble: run the models of its steps")
    instance = description.instances[0]
    if instance.visible_devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = instance.visible_devices
    order = (
        load_message(description, version, instance, config, log_verbose=1),
        description.to_wire(),
        given.input,
        given.output,
        given.replay,
    )
    descriptor = os.memfd_create("tidepool-order", 0)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(msgspec.msgpack.encode(order))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", _PROGRAM, str(descriptor)])

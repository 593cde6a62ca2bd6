"""Repository agents: what has to hold of a model's files before they are loaded."""

from collections.abc import Mapping
from pathlib import Path

from configs import digests, signature
from configs.errors import ConfigError, nearest
from configs.tree import Node

AGENTS = ("checksum", "signature")


def verify(config: Node, directory: Path, key: str) -> dict[str, str]:
    """Ask the agents that the configuration names, in their order; with a `key` every model has to be signed.

    The digests that hold, as `MD5:...` by path. Raises ConfigError with the file that is another, OSError.
    """
    named: Node | None = config.get("model_repository_agents")
    found: dict[str, str] = {}
    for agent in named.get("agents") if named is not None else ():
        match agent.get("name"):
            case "checksum":
                found |= _checksum(directory, agent.get("parameters"))
            case "signature":
                if not key:
                    raise ConfigError(f"{agent.position}: agent 'signature' needs the server's --model-signature-key")
            case other:
                known = f"Agents here are {', '.join(AGENTS)}{nearest(other, AGENTS)}"
                raise ConfigError(f"{agent.position}: unable to find repository agent '{other}'. {known}")
    return {**found, **signature.verify(directory, Path(key))} if key else found


def _checksum(directory: Path, parameters: Mapping[str, str]) -> dict[str, str]:
    """Triton's agent: parameters such as `MD5:1/model.onnx` with the digest that the file has to have."""
    found = {}
    for name, expected in parameters.items():
        algorithm, colon, path = name.partition(":")
        if not colon:
            raise ConfigError(f"failed to parse key: {name}")
        if algorithm != "MD5":
            raise ConfigError(f"Unsupported checksum algorithm: {algorithm}")
        found[path] = digests.check(directory, path, algorithm, expected)
    return found

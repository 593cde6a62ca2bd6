"""Compile the .proto files of this package into the one descriptor set that is loaded at run time.

Run from the project's root: `python -m configs.proto.generate`. Needs grpcio-tools (the `dev` extra).
"""

import sys
from pathlib import Path

from grpc_tools import protoc

from configs.proto.schema import COMPILED

ROOT = Path(__file__).parents[2]
SOURCES = ("configs/proto/model_config.proto", "configs/proto/server.proto")


def main() -> int:
    """Write `config.binpb`; returns protoc's exit status."""
    return int(protoc.main(["protoc", f"-I{ROOT}", f"--descriptor_set_out={COMPILED}", *SOURCES]))


if __name__ == "__main__":
    sys.exit(main())

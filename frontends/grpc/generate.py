"""Compile the service's .proto files, with all they import, into the one descriptor set that is loaded at run time.

Run from the project's root: `python -m frontends.grpc.generate`. Needs grpcio-tools (the `dev` extra).
"""

import sys
from pathlib import Path

from grpc_tools import protoc

from frontends.grpc.messages import COMPILED

ROOT = Path(__file__).parents[2]
SOURCES = ("frontends/grpc/grpc_service.proto", "frontends/grpc/health.proto", "frontends/grpc/reflection.proto")


def main() -> int:
    """Write `inference.binpb`; returns protoc's exit status."""
    return int(protoc.main(["protoc", f"-I{ROOT}", "--include_imports", f"--descriptor_set_out={COMPILED}", *SOURCES]))


if __name__ == "__main__":
    sys.exit(main())

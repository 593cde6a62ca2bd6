"""Start a gRPC frontend; the broker does this."""

import os

from frontends.lifecycle import run

if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC is imported: it would log what clients break
    from frontends.grpc.server import serve

    run("grpc", serve)

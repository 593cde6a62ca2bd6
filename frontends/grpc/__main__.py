"""Start a gRPC frontend; the broker does this."""

from frontends.grpc.server import serve
from frontends.lifecycle import run

if __name__ == "__main__":
    run("grpc", serve)

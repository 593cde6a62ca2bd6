"""`python -m frontends.metrics`: started by the broker."""

from frontends.lifecycle import run
from frontends.metrics.server import serve

if __name__ == "__main__":
    run("metrics", serve)

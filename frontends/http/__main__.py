"""`python -m frontends.http`: started by the broker."""

from frontends.http.server import serve
from frontends.lifecycle import run

if __name__ == "__main__":
    run("http", serve)

"""A client that is not Google's C core: Node's own gRPC, with classes made from our .proto files."""

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_broker import unknown
from tests.support.grpc_server import GrpcServer

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "tests" / "support" / "node" / "client.js"
PACKAGES = ("@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1")
INSTALL_SECONDS, RUN_SECONDS = 90.0, 60.0


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of Node packages. Skips where they cannot be had."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}")
    directory = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", *PACKAGES]
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {' '.join(PACKAGES)} within {INSTALL_SECONDS:g} s")
    if done.returncode:
        pytest.skip(f"npm could not install {' '.join(PACKAGES)}: {done.stderr.strip()[-300:]}")
    return directory / "node_modules"


def test_unary_and_streaming_inference(modules: Path) -> None:
    with GrpcServer() as server:
        done = subprocess.run(
            ["node", str(CLIENT), server.address, str(ROOT)],
            env={**os.environ, "NODE_PATH": str(modules)},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    echo = {"model": "echo", "outputs": [["A", "FP32", [1, 2]]], "bytes": struct.pack("<ff", 1.5, -2).hex()}
    assert told["unary"] == {"id": "unary", "final": None, **echo}
    assert told["failing"] == {"code": 5, "details": unknown("nope")}
    in_order = [answer for answer in told["streaming"] if answer.get("id") != "third"]
    assert in_order == [{"id": "first", "final": True, **echo}, {"error": unknown("nope")}]
    counted = [answer for answer in told["streaming"] if answer.get("id") == "third"]
    assert [(answer["bytes"], answer["final"]) for answer in counted] == [
        ("00000000", False),
        ("01000000", False),
        (None, True),
    ]

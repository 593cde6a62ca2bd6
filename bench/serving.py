"""How fast does Tidepool serve a Python model, and at what CPU cost, compared with the real Triton?

Both servers run at the same time with the same model.py, and are asked in turn in short windows.
"""

import contextlib
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.http

from bench.comparison import Case, run
from bench.connection import Connection, connect
from bench.grpc_client import GrpcConnection, infer_message
from bench.http_client import HttpConnection, infer_request
from bench.servers import Server

REPOSITORY = Path(__file__).parent / "models"
MODEL = "identity_python"
PAYLOADS = {"16 floats": 16, "600 KB": 150_000, "8 MB": 2_000_000}  # number of floats
CONCURRENCIES = (1, 8, 32)
CALLS_PER_CONNECTION = 6  # of gRPC; perf_analyzer's habit


class PayloadCase(Case):
    """One size of payload."""

    def connections(self, server: Server) -> list[Connection]:
        """Connections that together keep `concurrency` requests in flight."""
        data = np.random.default_rng(0).random(PAYLOADS[self.payload], dtype=np.float32)
        if self.protocol == "HTTP":
            request = infer_request(MODEL, data)
            return [HttpConnection(connect(server.http), [request], data.nbytes) for _ in range(self.concurrency)]
        message = infer_message(MODEL, data)
        whole, rest = divmod(self.concurrency, CALLS_PER_CONNECTION)
        shares = [CALLS_PER_CONNECTION] * whole + ([rest] if rest else [])
        return [GrpcConnection(connect(server.grpc), [message], data.nbytes, share) for share in shares]


CASES = [
    PayloadCase(protocol, payload, concurrency)
    for protocol in ("HTTP", "gRPC")
    for payload in PAYLOADS
    for concurrency in CONCURRENCIES
]


def check_answers(server: Server) -> None:
    """One request of each size over each protocol through tritonclient; SystemExit unless it comes back as sent."""
    clients = (
        (tritonclient.http, "{}:{}".format(*server.http)),
        (tritonclient.grpc, "{}:{}".format(*server.grpc)),
    )
    for protocol, url in clients:
        with contextlib.closing(protocol.InferenceServerClient(url)) as client:
            for size in PAYLOADS.values():
                data = np.random.default_rng().random(size, dtype=np.float32)
                tensor = protocol.InferInput("INPUT0", [size], "FP32")
                tensor.set_data_from_numpy(data)
                answer = client.infer(MODEL, [tensor]).as_numpy("OUTPUT0")
                if not np.array_equal(answer, data):
                    raise SystemExit(f"{server.name} answers {size} floats wrongly at {url}")


if __name__ == "__main__":
    run(__doc__, REPOSITORY, CASES, check_answers)

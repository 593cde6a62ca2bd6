"""How fast are batches, ensembles and sequences served, compared with the real Triton?

Three models in Python: the digits network with dynamic batching, an ensemble of three steps, a model with state.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http

from bench.comparison import Case, run
from bench.connection import Connection, connect
from bench.grpc_client import GrpcConnection, infer_message
from bench.http_client import HttpConnection, infer_request
from bench.servers import Server

REPOSITORY = Path(__file__).parent / "scheduled"
SEQUENCE_LENGTH = 10
MODELS: dict[str, tuple[str, tuple[int, ...]]] = {
    "batching": ("digits", (1, 1, 8, 8)),
    "ensemble": ("three_steps", (16,)),
    "sequence": ("running_sum", (1, 16)),
}
"""Row: the model, and the shape of a request."""


class ModelCase(Case):
    """One of the models."""

    def connections(self, server: Server) -> list[Connection]:
        """A connection for each request in flight, and each with its own sequence."""
        return [self._connection(server, number + 1) for number in range(self.concurrency)]

    def _connection(self, server: Server, number: int) -> Connection:
        model, shape = MODELS[self.payload]
        data = np.random.default_rng(0).random(shape, dtype=np.float32)
        places = sequence(number) if self.payload == "sequence" else [{}]
        least = 4 * (10 if model == "digits" else data.size)
        if self.protocol == "HTTP":
            requests = [infer_request(model, data, **place) for place in places]
            return HttpConnection(connect(server.http), requests, least)
        return GrpcConnection(connect(server.grpc), [infer_message(model, data, **place) for place in places], least, 1)


CASES = [ModelCase(protocol, payload, 32) for protocol in ("HTTP", "gRPC") for payload in MODELS]


def sequence(number: int) -> list[dict[str, Any]]:
    """The parameters of each request of a sequence. Its start ends what an earlier window has left of it."""
    last = SEQUENCE_LENGTH - 1
    return [
        {"sequence_id": number, "sequence_start": index == 0, "sequence_end": index == last}
        for index in range(SEQUENCE_LENGTH)
    ]


def check_answers(server: Server) -> None:
    """One request of each kind, and a whole sequence, through tritonclient; SystemExit unless the answers are right."""
    with contextlib.closing(tritonclient.http.InferenceServerClient("{}:{}".format(*server.http))) as client:

        def ask(row: str, **place: Any) -> tuple[Any, Any]:
            model, shape = MODELS[row]
            data = np.random.default_rng().random(shape, dtype=np.float32)
            tensor = tritonclient.http.InferInput("INPUT0", list(shape), "FP32")
            tensor.set_data_from_numpy(data)
            return data, client.infer(model, [tensor], **place).as_numpy("OUTPUT0")

        expect(server, "batching", ask("batching")[1].shape == (1, 10))
        given, answer = ask("ensemble")
        expect(server, "ensemble", np.allclose(answer, given + 3))
        total = np.float32(0)
        for place in sequence(1):
            given, answer = ask("sequence", **place)
            total = total + given
            expect(server, "sequence", np.allclose(answer, total))


def expect(server: Server, row: str, is_right: bool) -> None:
    """SystemExit with the name of the row."""
    if not is_right:
        raise SystemExit(f"{server.name} answers wrongly: {row}")


if __name__ == "__main__":
    run(__doc__, REPOSITORY, CASES, check_answers)

"""Sends ten handwritten digits through tritonclient, over HTTP and gRPC, to the three demo models.

Exits with 1 when a model recognises fewer than 9 of the 10 over either protocol, or cannot be reached.
"""

import argparse
import csv
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

REQUIRED = 9
TIMEOUT = 30.0  # seconds

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scan:
    """One image file and the digit that it shows."""

    name: str
    file: bytes
    pixels: Array
    truth: int


@dataclass(frozen=True)
class Protocol:
    """One way to the server: `client` is tritonclient's module, `infer` the method of a client of it."""

    name: str
    client: ModuleType
    infer: Callable[..., Any]


@dataclass(frozen=True)
class DemoModel:
    """How to ask one model for a digit: `tensor` makes its input of shape [1, ...], `digit` reads its answer."""

    name: str
    input: str
    output: str
    tensor: Callable[[Scan], Array]
    digit: Callable[[Array], int]


def pixels_tensor(scan: Scan) -> Array:
    """FP32 [1, 1, 8, 8] with ink from 0 to 1."""
    return (scan.pixels.astype(np.float32) / 255)[np.newaxis, np.newaxis]


def file_tensor(scan: Scan) -> Array:
    """BYTES [1, 1]: the PNG file as it is."""
    return np.array([[scan.file]], dtype=np.object_)


MODELS = (
    DemoModel("digits", "INPUT__0", "OUTPUT__0", pixels_tensor, lambda answer: int(answer.argmax())),
    DemoModel("digits_onnx", "image", "probabilities", pixels_tensor, lambda answer: int(answer.argmax())),
    DemoModel("digits_python", "IMAGE", "DIGIT", file_tensor, lambda answer: int(answer.item())),
)


def load_scans(directory: Path) -> list[Scan]:
    """The images that `truth.csv` lists."""
    scans = []
    with (directory / "truth.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            path = directory / row["file"]
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L"))
            scans.append(Scan(path.name, path.read_bytes(), pixels, int(row["digit"])))
    return scans


def classify(protocol: Protocol, model: DemoModel, scan: Scan) -> tuple[int, float]:
    """The digit that the model sees, and the seconds it took."""
    array = model.tensor(scan)
    tensor = protocol.client.InferInput(model.input, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    outputs = [protocol.client.InferRequestedOutput(model.output)]
    start = time.perf_counter()
    result = protocol.infer(model.name, [tensor], outputs=outputs)
    return model.digit(result.as_numpy(model.output)), time.perf_counter() - start


def classify_all(protocol: Protocol, model: DemoModel, scans: list[Scan]) -> int:
    """Prints one line per scan and a summary; the number of scans recognised."""
    label = f"{protocol.name} {model.name:13}"
    classify(protocol, model, scans[0])  # the first request also opens the connection
    right, latencies = 0, []
    for scan in scans:
        digit, seconds = classify(protocol, model, scan)
        right += digit == scan.truth
        latencies.append(seconds)
        mark = "" if digit == scan.truth else "  wrong"
        print(f"{label} {scan.name}  prediction {digit}  truth {scan.truth}  {seconds * 1e3:6.2f} ms{mark}")
    print(f"{label} {right} of {len(scans)} right, median {np.median(latencies) * 1e3:.2f} ms\n")
    return right


def connect(http: str, grpc: str) -> list[Protocol]:
    """Both clients; nothing is sent before the first request."""
    over_http = http_client.InferenceServerClient(http, connection_timeout=TIMEOUT, network_timeout=TIMEOUT)
    over_grpc = grpc_client.InferenceServerClient(grpc)
    return [
        Protocol("http", http_client, over_http.infer),
        Protocol("grpc", grpc_client, functools.partial(over_grpc.infer, client_timeout=TIMEOUT)),
    ]


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", default="localhost:8000", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="localhost:8001", metavar="HOST:PORT")
    arguments = parser.parse_args()
    scans = load_scans(Path(__file__).resolve().parent / "data")
    is_good = True
    for protocol in connect(arguments.http, arguments.grpc):
        for model in MODELS:
            try:
                is_good &= classify_all(protocol, model, scans) >= REQUIRED
            except (InferenceServerException, OSError) as error:
                print(f"{protocol.name} {model.name:13} failed: {error}\n", file=sys.stderr)
                is_good = False
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Reads a handwritten digit from an encoded image: pillow decodes, numpy runs the trained network."""

from __future__ import annotations  # Triton completes pb_utils only after it has imported this file

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from PIL import Image

Floats = npt.NDArray[np.float32]

MAX_PIXELS = 4096 * 4096  # a small file can unpack to gigabytes


class TritonPythonModel:
    """IMAGE, BYTES [n, 1], to DIGIT, INT32 [n, 1], and PROBABILITY, FP32 [n, 1]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the weights that lie beside this file."""
        directory = Path(args["model_repository"]) / args["model_version"]
        with np.load(directory / "weights.npz", allow_pickle=False) as archive:
            self.weights = dict(archive)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Classifies the images of all requests at once; a bad image fails only its own request."""
        decoded = [self._decode(request) for request in requests]
        batches = [batch for batch in decoded if isinstance(batch, np.ndarray)]
        answers = iter(self._classify_all(batches) if batches else [])
        return [
            respond(next(answers)) if isinstance(batch, np.ndarray) else pb_utils.InferenceResponse(error=batch)
            for batch in decoded
        ]

    def _classify_all(self, batches: list[Floats]) -> list[Floats]:
        """One pass of the network for several requests, and each request's share of the answer."""
        ends = np.cumsum([len(batch) for batch in batches])
        return np.split(classify(np.concatenate(batches), self.weights), ends[:-1])

    def _decode(self, request: pb_utils.InferenceRequest) -> Floats | pb_utils.TritonError:
        """FP32 [n, 1, 8, 8], or the error to answer with."""
        files = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
        try:
            return np.stack([decode(file) for file in files])
        except Exception as error:  # pillow has many ways to say that a file is broken
            message = f"IMAGE is not a PNG or JPEG image: {error}"
            return pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)


def decode(file: bytes) -> Floats:
    """An image file of any size, bright ink on a dark ground, as FP32 [1, 8, 8] with ink from 0 to 1."""
    with Image.open(io.BytesIO(file), formats=("PNG", "JPEG")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        pixels = image.convert("L").resize((8, 8), Image.Resampling.BOX)
    return np.asarray(pixels, dtype=np.float32)[np.newaxis] / 255


def respond(probabilities: Floats) -> pb_utils.InferenceResponse:
    """The most probable digit of each image, with its probability."""
    digits = probabilities.argmax(axis=1)[:, np.newaxis].astype(np.int32)
    best = np.take_along_axis(probabilities, digits, axis=1)
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor("DIGIT", digits), pb_utils.Tensor("PROBABILITY", best.astype(np.float32))]
    )


def classify(images: Floats, weights: dict[str, Floats]) -> Floats:
    """FP32 [n, 1, 8, 8] to probabilities, FP32 [n, 10]."""
    maps = np.maximum(convolve(images, weights["conv1.weight"], weights["conv1.bias"]), 0)
    maps = np.maximum(convolve(maps, weights["conv2.weight"], weights["conv2.bias"]), 0)
    pooled = maps.reshape(len(maps), 32, 4, 2, 4, 2).max(axis=(3, 5))
    hidden = pooled.reshape(len(maps), -1) @ weights["hidden.weight"].T + weights["hidden.bias"]
    logits = np.maximum(hidden, 0) @ weights["digit.weight"].T + weights["digit.bias"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def convolve(maps: Floats, kernels: Floats, bias: Floats) -> Floats:
    """A 3 x 3 convolution that keeps the size: [n, in, 8, 8] to [n, out, 8, 8]."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwyx,ocyx->nohw", windows, kernels, optimize=True) + bias[:, np.newaxis, np.newaxis]

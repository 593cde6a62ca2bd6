"""The digits network in numpy, once for all requests of a batch."""

from __future__ import annotations  # Triton completes pb_utils only after it has imported this file

from pathlib import Path

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

Floats = npt.NDArray[np.float32]


class TritonPythonModel:
    """INPUT0, FP32 [n, 1, 8, 8], to OUTPUT0, FP32 [n, 10]: one logit per digit."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the weights that lie beside this file."""
        directory = Path(args["model_repository"]) / args["model_version"]
        with np.load(directory / "weights.npz", allow_pickle=False) as archive:
            self.weights = dict(archive)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """One pass of the network, and each request's share of the answer."""
        images = [pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy() for request in requests]
        ends = np.cumsum([len(batch) for batch in images])
        shares = np.split(classify(np.concatenate(images), self.weights), ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", share)]) for share in shares]


def classify(images: Floats, weights: dict[str, Floats]) -> Floats:
    """FP32 [n, 1, 8, 8] to logits, FP32 [n, 10]."""
    maps = np.maximum(convolve(images, weights["conv1.weight"], weights["conv1.bias"]), 0)
    maps = np.maximum(convolve(maps, weights["conv2.weight"], weights["conv2.bias"]), 0)
    pooled = maps.reshape(len(maps), 32, 4, 2, 4, 2).max(axis=(3, 5))
    hidden = pooled.reshape(len(maps), -1) @ weights["hidden.weight"].T + weights["hidden.bias"]
    logits: Floats = np.maximum(hidden, 0) @ weights["digit.weight"].T + weights["digit.bias"]
    return logits


def convolve(maps: Floats, kernels: Floats, bias: Floats) -> Floats:
    """A 3 x 3 convolution that keeps the size: [n, in, 8, 8] to [n, out, 8, 8]."""
    count, channels = maps.shape[:2]
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(count * 64, channels * 9)
    product = columns @ kernels.reshape(len(kernels), -1).T + bias
    return product.reshape(count, 8, 8, len(kernels)).transpose(0, 3, 1, 2)

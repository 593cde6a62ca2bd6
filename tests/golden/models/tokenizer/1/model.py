"""Turns texts into numbers: what runs before a network."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """TOKENS has a row for each text: the lengths of its words, 8 at most; USED is how many words that are."""

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """The rows of one request."""
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        tokens = np.zeros((len(texts), 8), np.int64)
        used = np.zeros((len(texts), 1), np.int64)
        for row, (text,) in enumerate(texts):
            lengths = [len(word) for word in text.decode().split()[:8]]
            tokens[row, : len(lengths)] = lengths
            used[row] = len(lengths)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TOKENS", tokens), pb_utils.Tensor("USED", used)])

"""A model without a config.pbtxt, which completes its own."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """IN comes back as OUT_IN."""

    @staticmethod
    def auto_complete_config(config):
        """One input, one output, batches."""
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [2]})
        config.add_output({"name": "OUT_IN", "data_type": "TYPE_FP32", "dims": [2]})
        return config

    def execute(self, requests):
        """One response for each request."""
        arrays = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT_IN", array)]) for array in arrays]

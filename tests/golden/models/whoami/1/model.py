"""Tells what it was told when it was initialized."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

TOLD = ("model_name", "model_version", "model_instance_name", "model_instance_kind", "model_instance_device_id")


class TritonPythonModel:
    """ANSWER has one line for each question in ASKED."""

    def initialize(self, args):
        """Everything that is the same in every repository."""
        self.told = {name: args[name] for name in TOLD}
        config = json.loads(args["model_config"])
        self.told["types"] = ",".join(sorted({type(value).__name__ for value in args.values()}))
        self.told["parameter"] = config["parameters"]["greeting"]["string_value"]
        self.told["groups"] = json.dumps([[group["name"], group["kind"]] for group in config["instance_group"]])
        self.told["output_type"] = str(
            pb_utils.triton_string_to_numpy(pb_utils.get_output_config_by_name(config, "ANSWER")["data_type"]).__name__
        )
        self.told["no_input"] = str(pb_utils.get_input_config_by_name(config, "NOTHING"))
        self.told["decoupled"] = str(pb_utils.using_decoupled_model_transaction_policy(config))

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """The answers, in order."""
        asked = pb_utils.get_input_tensor_by_name(request, "ASKED").as_numpy()
        answers = np.array([self.told[name.decode()].encode() for name in asked], np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("ANSWER", answers)])

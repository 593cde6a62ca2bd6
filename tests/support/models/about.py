"""A model that tells about the process that it runs in, as JSON; it leaves a process behind when it is asked to."""

import json
import multiprocessing
import os
import random
import subprocess
import sys

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            answer = pool.apply(abs, (-1,))
        facts = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "main": sys.modules["__main__"].__spec__.name,
            "random": random.random(),
            "numpy random": float(np.random.random()),
            "spawned": answer,
            "left": subprocess.Popen(["sh", "-c", "sleep 0.1 & sleep 600"]).pid,
        }
        output = pb_utils.Tensor("OUT", np.array([json.dumps(facts)], np.object_))
        return [pb_utils.InferenceResponse([output]) for _ in requests]

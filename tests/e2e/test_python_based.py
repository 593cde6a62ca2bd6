"""Backends in Python: one model.py for many models, as Triton has them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.clients import Client
from tests.support.http import ask
from tests.support.repository import write_model
from tests.support.server import Server

LIBRARY = """
import json
import sys

import numpy as np
import triton_python_backend_utils as pb_utils

import vocabulary


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "IN", "data_type": "TYPE_STRING", "dims": [1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_STRING", "dims": [3]})
        return config

    def initialize(self, args):
        self.args = args

    def execute(self, requests):
        responses = []
        for request in requests:
            (text,) = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            found = [text.decode() + vocabulary.MARK, __name__, pb_utils.get_model_dir()]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(found, dtype=object))]))
        return responses
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("based")
    library = directory / "backends" / "shout"
    library.mkdir(parents=True)
    (library / "model.py").write_text(LIBRARY)
    (library / "vocabulary.py").write_text("MARK = '!'\n")
    found = Server(directory, 'backend_directory: "backends"')
    write_model(found.repository, "first", 'backend: "shout"')
    write_model(found.repository, "second.shout", "", versions=(3,))
    with found:
        yield found


@pytest.mark.parametrize(("model", "version"), [("first", "1"), ("second.shout", "3")])
def test_models_share_a_backend(server: Server, model: str, version: str) -> None:
    with Client("http", server) as client:
        found = client.infer(model, {"IN": np.array([b"hey"], dtype=object)})["OUT"]
        metadata = client.metadata(model)
    config = ask(server.address("http"), "GET", f"/v2/models/{model}/config").json
    assert [bytes(text).decode() for text in found[:2]] == ["hey!", "model"]
    assert Path(bytes(found[2]).decode()) == server.repository / model / version
    assert metadata["platform"] == "shout"
    assert (config["backend"], config["platform"], config["runtime"]) == ("shout", "", "model.py")

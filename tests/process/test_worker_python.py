"""The Python backend in a real worker: models as users write them, and how they fail."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import CheckReady, ErrorCode, Execute, LoadFailed, Log, Result
from tests.support.worker import FakeBroker, item, tensor, write_model

CONFIG = {
    "max_batch_size": 8,
    "input": [tensor("IN", "TYPE_FP32", -1)],
    "output": [tensor("OUT", "TYPE_FP32", -1)],
}
PREAMBLE = "import json, os, sys\nimport numpy as np\nimport triton_python_backend_utils as pb_utils\n"
ONES = np.ones((1, 16), dtype=np.float32)


def model(directory: Path, body: str, name: str = "model") -> Path:
    """A model whose class has `body`."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    return write_model(directory, name, f"{PREAMBLE}\n\nclass TritonPythonModel:\n{indented}")


ECHO = """
def execute(self, requests):
    responses = []
    for request in requests:
        array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]))
    return responses
"""


def execute(body: str) -> str:
    return "def execute(self, requests):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def infer(directory: Path, body: str, *inputs: np.ndarray[Any, Any]) -> tuple[Result, ...]:
    """One batch through a model with this class body; one request for each array."""
    with FakeBroker() as broker:
        broker.loaded("python", model(directory, body), CONFIG)
        return broker.execute(*[item(broker.ref("IN", array)) for array in inputs or (ONES,)])


def test_requests_keep_their_own_tensors(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, ECHO), CONFIG)
        arrays = [np.full((n, 700), n, dtype=np.float32) for n in (1, 2, 3)]
        results = broker.execute(*[item(broker.ref("IN", array)) for array in arrays])
        for array, result in zip(arrays, results, strict=True):
            np.testing.assert_array_equal(broker.arrays(result)["OUT"], array)


def test_arguments_of_initialize(tmp_path: Path) -> None:
    body = """
def initialize(self, args):
    assert all(isinstance(value, str) for value in args.values())
    args["dir"] = pb_utils.get_model_dir()
    self.args = json.dumps(args).encode()
def execute(self, requests):
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([self.args], dtype=np.object_))])]
"""
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG)
        out = broker.arrays(broker.infer(broker.ref("IN", ONES)))["OUT"]
    args = json.loads(out[0])
    config = json.loads(args.pop("model_config"))
    assert config["input"] == CONFIG["input"]
    assert args == {
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_instance_name": "model_0_0",
        "model_repository": str(tmp_path / "model"),
        "model_version": "1",
        "model_name": "model",
        "dir": str(tmp_path / "model" / "1"),
    }


def test_request_accessors(tmp_path: Path) -> None:
    body = execute("""
r = requests[0]
t = r.inputs()[0]
seen = [t.name(), t.shape(), t.triton_dtype(), t.is_cpu(), sorted(r.requested_output_names()), r.request_id(),
        r.correlation_id(), r.flags(), r.timeout(), json.loads(r.parameters()), r.is_cancelled(),
        pb_utils.get_input_tensor_by_name(r, "NONE")]
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([json.dumps(seen)], dtype=np.object_))],
                                   parameters={"a": 1, "b": True, "c": "x"})]
""")
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG)
        result = broker.infer(
            broker.ref("IN", ONES),
            request_id="id",
            correlation_id="seq",
            flags=1,
            timeout_us=5,
            parameters={"x": 1.5, "y": True},
        )
        seen = json.loads(broker.arrays(result)["OUT"][0])
    expected = ["IN", [1, 16], 11, True, ["OUT"], "id", "seq", 1, 5, {"x": 1.5, "y": True}, False, None]
    assert seen == expected
    assert result.parameters == {"a": 1, "b": True, "c": "x"}


def test_only_declared_and_requested_outputs_are_sent_and_the_last_of_a_name_counts(tmp_path: Path) -> None:
    body = execute("""
make = lambda name, value: pb_utils.Tensor(name, np.array([value], dtype=np.int32))
return [pb_utils.InferenceResponse([make("A", 1), make("B", 2), make("A", 3), make("UNDECLARED", 4)])]
""")
    declared = [tensor(name, "TYPE_INT32", -1) for name in ("A", "B", "C")]
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG | {"output": declared})
        assert {n: a[0] for n, a in broker.arrays(broker.infer(broker.ref("IN", ONES))).items()} == {"A": 3, "B": 2}
        assert list(broker.arrays(broker.infer(broker.ref("IN", ONES), outputs=("A", "C")))) == ["A"]


def test_inputs_are_private_and_writable(tmp_path: Path) -> None:
    body = execute("""
array = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()
array += 1
return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])]
""")
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG)
        for size in (16, 100_000, 10_000_000):  # in the message, copied, mapped
            ref = broker.ref("IN", np.zeros((1, size), dtype=np.float32))
            for _ in range(2):  # the second attempt finds what the client sent
                assert (broker.arrays(broker.infer(ref))["OUT"] == 1).all()


def test_malformed_strings_fail_their_request_alone(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, ECHO), CONFIG)
        good = broker.ref("IN", np.array([b"a"], dtype=np.object_))
        bad = good._replace(data=b"\x09\0\0\0a")
        first, second = broker.execute(item(bad), item(good))
        assert (first.code, first.error) == (
            ErrorCode.INVALID_ARG,
            "[request id: <id_unknown>] incomplete string data for inference input 'IN' for model 'model', "
            "expecting string of length 9 but only 1 bytes available",
        )
        assert broker.arrays(second)["OUT"][0] == b"a"


def test_an_error_of_one_request(tmp_path: Path) -> None:
    body = execute("""
error = pb_utils.TritonError("not this one", pb_utils.TritonError.NOT_FOUND)
return [pb_utils.InferenceResponse(error=error), pb_utils.InferenceResponse([])]
""")
    first, second = infer(tmp_path, body, ONES, ONES)
    assert (first.code, first.error) == (ErrorCode.NOT_FOUND, "not this one")
    assert second.code == ErrorCode.OK


PREFIX = "Failed to process the request(s) for model 'model_0_0', message: "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no')", "ValueError: no\n\nAt:\n  {path}(8): execute\n"),
        ("raise ValueError('\\udcff')", "ValueError: ?\n\nAt:\n  {path}(8): execute\n"),
        ("sys.exit(3)", "SystemExit: 3\n\nAt:\n  {path}(8): execute\n"),
        ("return None", "Expected a list in the execute return, found type '<class 'NoneType'>'."),
        ("return ()", "Expected a list in the execute return, found type '<class 'tuple'>'."),
        (
            "return []",
            "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
            "InferenceRequest(s) size is:1, and InferenceResponse(s) size is:0\n",
        ),
        (
            "return [None]",
            "Expected an 'InferenceResponse' object in the execute function return list, "
            "found type '<class 'NoneType'>'.",
        ),
        (
            "return [1]",
            "Expected an 'InferenceResponse' object in the execute function return list, found type '<class 'int'>'.",
        ),
        (
            "return [pb_utils.Tensor('OUT', np.ones(1))]",
            "Expected an 'InferenceResponse' object in the execute function return list, "
            "found type '<class 'c_python_backend_utils.Tensor'>'.",
        ),
        (
            "pb_utils.InferenceRequest(model_name='m', inputs=[], requested_output_names=[''])",
            "TritonModelException: The name of a requested output cannot be an empty string.\n\n"
            "At:\n  {path}(8): execute\n",
        ),
        (
            "pb_utils.nonsense",
            "AttributeError: module 'workers.pb_utils' has no attribute 'nonsense'\n\nAt:\n  {path}(8): execute\n",
        ),
        (
            "requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)",
            "TritonModelException: Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the model "
            "is not configured to handle such a flag.\n\nAt:\n  {path}(8): execute\n",
        ),
    ],
)
def test_failures_of_execute(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "model" / "1" / "model.py"
    (result,) = infer(tmp_path, execute(body))
    assert result.code == ErrorCode.INTERNAL
    assert result.error == PREFIX + message.format(path=path)


def test_a_failure_fails_every_request_and_the_model_goes_on(tmp_path: Path) -> None:
    body = execute("""
if len(requests) > 1: raise RuntimeError("together")
return [pb_utils.InferenceResponse([])]
""")
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG)
        refs = [item(broker.ref("IN", ONES)) for _ in range(3)]
        assert ["RuntimeError: together" in r.error for r in broker.execute(*refs)] == [True] * 3
        assert broker.execute(refs[0])[0].code == ErrorCode.OK


def test_a_model_without_execute(tmp_path: Path) -> None:
    (result,) = infer(tmp_path, "pass")
    path = tmp_path / "model" / "1" / "model.py"
    assert result.error == f"{PREFIX}Python model {path} does not implement `execute` method."


def test_a_coroutine(tmp_path: Path) -> None:
    body = """
async def execute(self, requests):
    import asyncio
    await asyncio.gather(*[asyncio.sleep(0.01) for _ in requests])
    return [pb_utils.InferenceResponse([]) for _ in requests]
"""
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG)
        one = item(broker.ref("IN", ONES))
        for _ in range(2):
            assert [r.code for r in broker.execute(one, one)] == [ErrorCode.OK] * 2
        assert broker.stop() == 0


def test_inputs_without_elements(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, ECHO), CONFIG)
        for array in (np.zeros((1, 0), dtype=np.float32), np.zeros((1, 0), dtype=np.object_)):
            assert broker.arrays(broker.infer(broker.ref("IN", array)))["OUT"].shape == (1, 0)


def failure(directory: Path, source: str, **changes: Any) -> str:
    with FakeBroker() as broker:
        answer = broker.load("python", write_model(directory, "model", source), CONFIG, **changes)
        assert isinstance(answer, LoadFailed), answer
        assert broker.stop() == 0
        return answer.error


def test_failures_to_load(tmp_path: Path) -> None:
    path = tmp_path / "model" / "1" / "model.py"
    assert failure(tmp_path, "x = 1") == "AttributeError: module '1.model' has no attribute 'TritonPythonModel'"
    assert failure(tmp_path, "import nothing_like_it") == (
        f"ModuleNotFoundError: No module named 'nothing_like_it'\n\nAt:\n  {path}(1): <module>\n"
    )
    assert failure(tmp_path, "def").startswith("SyntaxError: invalid syntax (model.py, line 1)")
    assert failure(tmp_path, "raise SystemExit(0)").startswith("SystemExit: 0\n\nAt:\n")
    initialize = (
        "class TritonPythonModel:\n    def initialize(self, args):\n        helper()\ndef helper():\n    1 / 0\n"
        "TritonPythonModel.finalize = lambda self: open(__file__ + '.finalized', 'w')\n"
    )
    assert failure(tmp_path, initialize) == (
        f"ZeroDivisionError: division by zero\n\nAt:\n  {path}(5): helper\n  {path}(3): initialize\n"
    )
    assert not path.with_name("model.py.finalized").exists()  # what was not initialized is not finalized


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py", "unable to find '{path}/1/none.py' for model instance 'm_0_0'"),
        ("model.bin", "Model name must end with '.py'. Model name is \"model.bin\"."),
        ("../../outside.py", "default_model_filename '../../outside.py' of model 'm' leaves the model directory"),
        ("/etc/passwd", "default_model_filename '/etc/passwd' of model 'm' leaves the model directory"),
    ],
)
def test_missing_and_misplaced_files(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "outside.py").write_text("")
    path = write_model(tmp_path, "m", "", "1/model.bin")
    with FakeBroker() as broker:
        answer = broker.load("python", path, {**CONFIG, "default_model_filename": name})
        assert isinstance(answer, LoadFailed)
        assert answer.error == message.format(path=path)


def test_the_user_owns_our_names(tmp_path: Path) -> None:
    """A model and a working directory with modules called like ours, which must neither break us nor be broken."""
    cwd = tmp_path / "cwd"
    for name in ("broker", "configs", "shm", "tests", "workers", "frontends", "msgspec"):
        (cwd / name).mkdir(parents=True)
        (cwd / name / "__init__.py").write_text("raise RuntimeError('the working directory was imported')")
    source = """
import sys
import shm, broker
from configs import value
from tests.data import other
from . import helper
import helper as plain
import triton_python_backend_utils as pb_utils
import c_python_backend_utils as c_utils
import numpy as np
try:
    import workers
except ModuleNotFoundError as error:
    missing = error.name


class TritonPythonModel:
    def execute(self, requests):
        import frontends.deep
        words = [shm.word, broker.word, value, other, helper.word, plain.word, missing, frontends.deep.word, __name__]
        assert c_utils.Tensor is pb_utils.Tensor
        assert sorted(m for m in sys.modules if m.split(".")[0] in ("broker", "shm", "workers")) == ["broker", "shm"]
        return [c_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(words, dtype=np.object_))])]
"""
    path = write_model(tmp_path, "model", source)
    (path / "1" / "shm.py").write_text("word = 'my shm'")
    (path / "broker.py").write_text("word = 'my broker'")
    (path / "1" / "helper.py").write_text("word = 'helper'")
    for package, module, text in (
        ("configs", "__init__", "value = 'my configs'"),
        ("tests", "data", "other = 'my tests'"),
        ("frontends", "deep", "word = 'my frontends'"),
    ):
        (path / package).mkdir()
        (path / package / f"{module}.py").write_text(text)
    with FakeBroker(cwd) as broker:
        broker.loaded("python", path, CONFIG)
        large = np.ones((1, 100_000), dtype=np.float32)
        result = broker.infer(broker.ref("IN", large))
        words = [word.decode() for word in broker.arrays(result)["OUT"]]
        assert words == [
            "my shm",
            "my broker",
            "my configs",
            "my tests",
            "helper",
            "helper",
            "workers",
            "my frontends",
            "1.model",
        ]
        assert broker.stop() == 0


def test_log_and_finalize(tmp_path: Path) -> None:
    body = """
def initialize(self, args):
    pb_utils.Logger.log_info("loaded")
    pb_utils.Logger.log_verbose("not shown")
    pb_utils.Logger.log("careful", pb_utils.Logger.WARNING)
def finalize(self):
    pb_utils.Logger.log_error("bye")
    raise KeyError("ignored")
"""
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG)
        assert broker.wait_for("Log") == Log("I", "model.py:9] loaded")
        assert broker.wait_for("Log") == Log("W", "model.py:11] careful")
        assert broker.stop() == 0
        broker.receive()
        assert broker.wait_for("Log") == Log("E", "model.py:13] bye")
        assert "finalize of model 'model_0_0' failed: KeyError: 'ignored'" in broker.wait_for("Log").text


def test_auto_complete_config(tmp_path: Path) -> None:
    body = """
@staticmethod
def auto_complete_config(config):
    config.add_input({"name": "IN", "data_type": "TYPE_STRING", "dims": [-1, 2]})
    config.add_output({"name": "OUT", "data_type": "TYPE_INT8", "dims": [1]})
    config.set_max_batch_size(4)
    config.set_dynamic_batching()
    config.set_model_transaction_policy({"decoupled": True})
    config.as_dict()["parameters"] = {"dropped": {"string_value": "1"}}
    return config
def initialize(self, args):
    config = json.loads(args["model_config"])
    assert config["output"][0]["name"] == "OUT" and config["max_batch_size"] == 4
    assert config["model_transaction_policy"] == {"decoupled": True} and "parameters" not in config
"""
    path = model(tmp_path, body)
    with FakeBroker() as broker:
        loaded = broker.loaded("python", path, {"max_batch_size": 0})
        assert loaded.inputs == (("IN", "BYTES", (-1, 2)),)
        assert loaded.outputs == (("OUT", "INT8", (1,)),)
        assert json.loads(json.dumps(loaded.config)) == {
            "max_batch_size": 4,
            "input": [{"name": "IN", "data_type": "TYPE_STRING", "dims": [-1, 2]}],
            "output": [{"name": "OUT", "data_type": "TYPE_INT8", "dims": [1]}],
            "dynamic_batching": {},
            "model_transaction_policy": {"decoupled": True},
        }
    with FakeBroker() as broker:
        broken = broker.load("python", path, {"input": [tensor("IN", "TYPE_FP32", -1, 2)]})
        assert isinstance(broken, LoadFailed)
        assert broken.error.startswith(
            "ValueError: unable to load model 'model', configuration expects datatype TYPE_FP32 for input 'IN', "
            "model provides TYPE_STRING"
        )
    with FakeBroker() as broker:
        settings = {"auto-complete-config": "false"}
        assert "KeyError: 'output'" in broker.load("python", path, {}, settings=settings).error


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("def is_ready(self):\n    return True", ErrorCode.OK, ""),
        ("async def is_ready(self):\n    return True", ErrorCode.OK, ""),
        (
            "def is_ready(self):\n    return False",
            ErrorCode.UNAVAILABLE,
            "Model 'model_0_0' is not ready (user-defined check failed).",
        ),
        ("def is_ready(self):\n    return 1", ErrorCode.INTERNAL, "is_ready() must return a boolean value"),
        ("def is_ready(self):\n    raise ValueError('no')", ErrorCode.INTERNAL, "ValueError: no\n\nAt:\n"),
    ],
)
def test_is_ready(tmp_path: Path, body: str, code: ErrorCode, text: str) -> None:
    with FakeBroker() as broker:
        assert broker.loaded("python", model(tmp_path, ECHO + body), CONFIG).is_asked
        broker.send(CheckReady(7))
        answer = broker.wait_for("ReadyChecked")
        assert (answer.number, answer.code) == (7, code)
        assert answer.error.startswith(text)
        assert broker.stop() == 0


def test_is_ready_is_asked_while_the_model_executes(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    import time
    deadline = time.monotonic() + 30
    while not getattr(self, "asked", False) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([self.asked]))]) for _ in requests]
def is_ready(self):
    self.asked = True
    return True
"""
    with FakeBroker() as broker:
        broker.loaded("python", model(tmp_path, body), CONFIG)
        broker.send(Execute(1, (item(broker.ref("IN", ONES)),)), CheckReady(1))
        assert broker.wait_for("ReadyChecked").code == ErrorCode.OK
        assert broker.wait_for("Executed").results[0].code == ErrorCode.OK


def test_models_without_a_say_are_not_asked(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        assert not broker.loaded("python", model(tmp_path, ECHO), CONFIG).is_asked

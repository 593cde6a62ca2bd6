"""server.pbtxt and flags as users write them: what serves, and what each mistake prints."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import instances, tensor, write_identity, write_model
from tests.support.server import Server, log_lines, run_to_exit
from tests.support.waiting import until

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")

WORKING = """\
model_config_list: [
  { config: { name: "my_resnet" platform: "pytorch" max_batch_size: 16
      instance_group: [ { count: 2 kind: KIND_CPU } ] } }
]
backend_config: [
  { backend: "python"
    parameters: { key: "shm-default-size" value: "4294967296" # 4GB
    } }
]
"""
DECLARED = f"""
input [ {tensor("pixels", dims="[ 4 ]")} ]
output [ {tensor("OUTPUT__0", dims="[ 4 ]")} ]
"""
THE_SAME_AS_CONFIG = 'platform: "pytorch" max_batch_size: 16\n' + instances(2)

SCRIPT = """
import sys, torch
class Doubler(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels * 2
torch.jit.script(Doubler()).save(sys.argv[1])
"""


@pytest.fixture(scope="session")
def torchscript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that doubles its one argument, `pixels`. Made in a process of its own: PyTorch is large."""
    directory = tmp_path_factory.mktemp("torchscript")
    script, path = directory / "make.py", directory / "model.pt"
    script.write_text(SCRIPT)  # TorchScript reads the source
    subprocess.run([sys.executable, "-W", "ignore", script, path], check=True, timeout=120)
    return path


def write_resnet(server: Server, torchscript: Path, config: str = "") -> Path:
    """The model of the configuration under test."""
    directory = write_model(server.repository, "my_resnet", config)
    shutil.copy(torchscript, directory / "1" / "model.pt")
    return directory


@needs_torch
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("form", ["server.pbtxt", "flags"])
def test_a_torchscript_model_serves(
    new_server: Callable[..., Server], torchscript: Path, form: str, is_declared: bool
) -> None:
    if form == "server.pbtxt":
        server = new_server(WORKING)
        write_resnet(server, torchscript, DECLARED if is_declared else "")
    else:
        server = new_server("", "--backend-config=python,shm-default-size=4294967296", "--log-verbose=1")
        write_resnet(server, torchscript, THE_SAME_AS_CONFIG + (DECLARED if is_declared else ""))
        server.flags.append(f"--model-repository={server.repository}")
    with server:
        assert len(server.pids()) == 2
        for protocol in PROTOCOLS:
            with Client(protocol, server) as client:
                found = client.metadata("my_resnet")
                assert [tensor["name"] for tensor in found["inputs"]] == ["pixels"]
                assert [tensor["name"] for tensor in found["outputs"]] == ["OUTPUT__0"]
                question = np.arange(8, dtype=np.float32).reshape(2, 4)
                answer = client.infer("my_resnet", {"pixels": question})["OUTPUT__0"]
                assert np.array_equal(answer, question * 2)
                if is_declared:
                    with pytest.raises(InferenceServerException, match="unexpected shape"):
                        client.infer("my_resnet", {"pixels": question[:, :3]})
                else:
                    others = np.arange(6, dtype=np.int64).reshape(1, 2, 3)
                    answer = client.infer("my_resnet", {"pixels": others})["OUTPUT__0"]
                    assert np.array_equal(answer, others * 2)


def test_a_block_form_of_the_list_and_platform_names_mean_the_same(new_server: Callable[..., Server]) -> None:
    server = new_server(
        'model_config_list { config { name: "a" instance_group { count: 2 } } config { name: "b" max_batch_size: 0 } }'
    )
    write_identity(server.repository, "a")
    write_identity(server.repository, "b", f"max_batch_size: 8\n{instances(1)}")
    with server, Client("http", server) as client:
        assert len(server.pids()) == 3
        assert client.raw.get_model_config("a")["instance_group"][0]["count"] == 2
        assert client.raw.get_model_config("b")["max_batch_size"] == 0


# ------------------------------------------------------------------------------------------- mistakes

IN_THE_FILE: dict[str, tuple[str, str, str]] = {
    "misspelt key": ("max_batch_size", "max_bach_size", "unknown field 'max_bach_size'.*'max_batch_size'"),
    "misspelt field": ("backend_config", "backend_confg", "unknown field 'backend_confg'.*'backend_config'"),
    "wrong type": ("count: 2", 'count: "two"', "expected an integer for 'count', got \"two\""),
    "unclosed bracket": ("KIND_CPU } ] } }", "KIND_CPU } ] }", "expected '}'"),
    "unclosed text": ('"my_resnet"', '"my_resnet', "not closed"),
    "duplicate model": ("]\nbackend", ', { config: { name: "my_resnet" } } ]\nbackend', "configured twice"),
    "unknown kind": ("KIND_CPU", "KIND_CUP", "unknown value 'KIND_CUP'.*'KIND_CPU'"),
    "nameless model": ('name: "my_resnet"', "", "must have a 'name'"),
    "not a number": ("max_batch_size: 16", "max_batch_size: 16x", "'16x' is not a number"),
    "bad size": ("4294967296", "4 GB", "shm-default-size is '4 GB', expected a number of bytes"),
    "out of range": ("backend_config", "exit_timeout_secs: -1\nbackend_config", "exit_timeout_secs.*-1"),
}
OF_A_MODEL: dict[str, tuple[str, str, str]] = {
    "negative count": ("count: 2", "count: -2", r"server\.pbtxt:3:25: .*has count -2"),
    "unknown backend": ('platform: "pytorch"', 'backend: "pytorhc"', r"server\.pbtxt:2:33: .*did you mean 'pytorch'"),
    "no GPU": ("KIND_CPU", "KIND_GPU", r"server\.pbtxt:3:25: .*has kind KIND_GPU but no GPUs are available"),
}


@pytest.mark.parametrize(("good", "broken", "expected"), IN_THE_FILE.values(), ids=IN_THE_FILE)
def test_a_mistake_in_the_file_prints_one_clear_line(
    new_server: Callable[..., Server], good: str, broken: str, expected: str
) -> None:
    server = new_server(WORKING.replace(good, broken, 1))
    write_model(server.repository, "my_resnet", "")
    status, log = run_to_exit(server)
    assert status == 1
    (line,) = log.splitlines()
    assert re.fullmatch(f"error: .*{expected}.*", line)
    assert re.match(r"error: (\S*server\.pbtxt:\d+:\d+|backend_config): ", line)


@pytest.mark.parametrize(("good", "broken", "expected"), OF_A_MODEL.values(), ids=OF_A_MODEL)
def test_a_mistake_of_a_model_prints_one_clear_line_and_ends_the_start(
    new_server: Callable[..., Server], good: str, broken: str, expected: str
) -> None:
    server = new_server(WORKING.replace(good, broken, 1), env={"CUDA_VISIBLE_DEVICES": ""})
    write_model(server.repository, "my_resnet", "")
    (server.repository / "my_resnet/1/model.pt").touch()
    status, log = run_to_exit(server)
    assert status == 1
    assert len(list(log_lines(server, f"^E.*model 'my_resnet': .*{expected}"))) == 1
    assert "Traceback" not in log
    assert list(log_lines(server, "^E.*failed to load all models.*my_resnet"))


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--htp-port=1", "--htp-port.*--http-port"),
        ("--http-port=many", "--http-port.*many"),
        ("--model-control-mode=sometimes", "--model-control-mode.*sometimes"),
        ("--model-repository=/nowhere/at/all", "/nowhere/at/all"),
        ("--backend-config=python", "<backend name>,<setting>=<value>"),
    ],
)
def test_a_mistake_on_the_command_line_prints_one_clear_line(
    new_server: Callable[..., Server], flag: str, expected: str
) -> None:
    status, log = run_to_exit(new_server("", flag))
    assert status == 1
    (line,) = log.splitlines()
    assert re.fullmatch(f"error: .*{expected}.*", line)


def test_no_repository_is_an_error_that_says_where_one_was_looked_for(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.repository.rmdir()
    status, log = run_to_exit(server)
    assert status == 1
    (line,) = log.splitlines()
    for place in ("--model-repository", "model_repository", "models"):
        assert place in line


def test_flags_and_keys_without_effect_are_warned_about(new_server: Callable[..., Server]) -> None:
    flags = ("--pinned-memory-pool-byte-size=1024", "--backend-config=python,stub-timeout-seconds=10")
    server = new_server("", *flags, "--backend-config=python,what-is-this=1")
    write_identity(server.repository, "m")
    with server:
        for name in ("pinned-memory-pool-byte-size", "stub-timeout-seconds", "what-is-this"):
            assert len(list(log_lines(server, f"^W.*{name}.*no effect"))) == 1


# ------------------------------------------------------------------------------------------- models that fail


def test_a_gpu_model_without_a_gpu_fails_alone_when_errors_are_not_to_end_the_server(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("", "--exit-on-error=false", env={"CUDA_VISIBLE_DEVICES": ""})
    write_identity(server.repository, "gpu", instances(1, "KIND_GPU"))
    write_identity(server.repository, "cpu")
    with server.start(wait="live"), Client("http", server) as client:
        until(lambda: client.raw.is_model_ready("cpu"), 30, "the other model is ready")
        until(lambda: list(log_lines(server, r"\| gpu +\| - +\| UNAVAILABLE: ")), 30, "the table says so")
        assert list(log_lines(server, "^E.*model 'gpu': .*has kind KIND_GPU but no GPUs are available"))
        assert not client.raw.is_server_ready()
        assert not client.raw.is_model_ready("gpu")
        assert client.infer("cpu", {"IN": np.ones(3, np.float32)})["OUT"] is not None
        with pytest.raises(InferenceServerException, match="unknown model: 'gpu'"):
            client.infer("gpu", {"IN": np.ones(3, np.float32)})


@pytest.fixture
def without_frameworks(tmp_path: Path) -> dict[str, str]:
    """An environment in which PyTorch and ONNX Runtime are not installed."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("torch", "onnxruntime"):
        missing = f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n"
        (hidden / f"{name}.py").write_text(missing)
    return {"PYTHONPATH": os.pathsep.join([str(hidden), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.mark.parametrize(("backend", "file", "extra"), [("pytorch", "pt", "torch"), ("onnxruntime", "onnx", "onnx")])
def test_a_model_whose_framework_is_missing_names_what_to_install(
    new_server: Callable[..., Server], without_frameworks: dict[str, str], backend: str, file: str, extra: str
) -> None:
    server = new_server("", env=without_frameworks)
    directory = write_model(server.repository, "m", f'backend: "{backend}"\n{DECLARED}{instances(1)}')
    (directory / "1" / f"model.{file}").write_bytes(b"not read")
    status, log = run_to_exit(server)
    assert status == 1
    assert f"pip install 'tidepool[{extra}]'" in log
    assert "Traceback" not in log

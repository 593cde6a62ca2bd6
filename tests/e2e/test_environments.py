"""Python models with environments of their own, on one server: packages, archives, folders, and what can go wrong."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as httpclient

from tests.support.environments import make_environment, pack, requirements, write_wheel
from tests.support.repository import instances, tensor, write_identity, write_model
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0


def write_fruit(repository: Path, name: str, parameters: dict[str, str] | None = None, count: int = 1) -> Path:
    """A model that tells which version of `tidepool_fruit` it sees."""
    io = f"input {tensor('IN', dims='[ 1 ]')}\noutput {tensor('OUT', 'TYPE_STRING', '[ 1 ]')}\n"
    more = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in (parameters or {}).items()
    )
    return write_model(repository, name, f'backend: "python"\n{io}{instances(count)}\n{more}', "fruit")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("environments")
    wheels = directory / "wheels"
    write_wheel(wheels, "tidepool_fruit", "1.0")
    write_wheel(wheels, "tidepool_fruit", "2.0")
    server = Server(directory, "exit_on_error: false", env=surroundings(directory))
    for name, version, count in (("old", "1.0", 2), ("new", "2.0", 1)):
        model = write_fruit(server.repository, name, count=count)
        (model / "requirements.txt").write_text(requirements(wheels, f"tidepool_fruit=={version}"))
    broken = write_fruit(server.repository, "broken")
    (broken / "requirements.txt").write_text(requirements(wheels, "tidepool_fruit==3.0"))
    made = make_environment(directory / "made", "tidepool_fruit", 'VERSION = "folder"')
    write_fruit(server.repository, "folder", {"EXECUTION_ENV_PATH": str(made)})
    packed = write_fruit(server.repository, "packed", {"EXECUTION_ENV_PATH": "$$TRITON_MODEL_DIRECTORY/env.tar.gz"})
    pack(made, packed / "env.tar.gz")
    empty = write_fruit(server.repository, "empty", {"EXECUTION_ENV_PATH": str(wheels)})
    assert empty.is_dir()
    write_fruit(server.repository, "nowhere", {"EXECUTION_ENV_PATH": "/nowhere/env.tar.gz"})
    write_identity(server.repository, "identity")
    with server.start(wait="live"):
        until(lambda: "started, but not ready" in server.log(), SECONDS, "everything has loaded or failed")
        yield server


def surroundings(directory: Path) -> dict[str, str]:
    """A cache of its own, and a PATH without uv: what pip says is looked for."""
    path = [place for place in os.get_exec_path() if shutil.which("uv", path=place) is None]
    return {"XDG_CACHE_HOME": str(directory / "cache"), "PATH": os.pathsep.join(path)}


def ask(server: Server, model: str) -> str:
    """What the model says of itself."""
    value = httpclient.InferInput("IN", [1], "FP32")
    value.set_data_from_numpy(np.zeros(1, np.float32))
    with httpclient.InferenceServerClient(server.address("http")) as client:
        return str(client.infer(model, [value]).as_numpy("OUT")[0].decode())


def reason(server: Server, model: str) -> str:
    """Why the model is not served."""
    with httpclient.InferenceServerClient(server.address("http")) as client:
        return next(entry.get("reason", "") for entry in client.get_model_repository_index() if entry["name"] == model)


def test_models_that_need_different_versions_of_a_package_are_served_side_by_side(server: Server) -> None:
    assert ask(server, "old").startswith("1.0 ")
    assert ask(server, "new").startswith("2.0 ")


def test_the_instances_of_a_model_share_one_environment(server: Server) -> None:
    cache = server.directory / "cache" / "tidepool" / "environments"
    built = [path for path in cache.glob("requirements-*/tidepool.json") if "/old/" in path.read_text()]
    assert len(built) == 1
    assert ask(server, "old") == f"1.0 {built[0].parent}"
    assert server.log(10**7).count("building an environment with Python") == 3  # old, new, broken: each once


def test_a_build_that_fails_fails_the_load_with_the_last_lines(server: Server) -> None:
    why = reason(server, "broken")
    assert "requirements.txt cannot be built" in why
    assert "No matching distribution found for tidepool_fruit==3.0" in why
    assert "[broken_0_0] ERROR: No matching distribution found" in server.log(10**7)


def test_a_folder_serves_where_it_lies(server: Server) -> None:
    assert ask(server, "folder") == f"folder {server.directory / 'made'}"


def test_an_archive_is_unpacked_into_the_cache(server: Server) -> None:
    version, prefix = ask(server, "packed").split(" ")
    assert version == "folder"
    assert prefix.startswith(str(server.directory / "cache" / "tidepool" / "environments" / "archive-"))


def test_errors_are_those_of_triton(server: Server) -> None:
    path = server.directory / "wheels" / "bin" / "activate"
    text = f"Path {path} does not exist. The Python environment should contain an 'activate' script."
    assert text in reason(server, "empty")
    assert "Failed to get the canonical path for /nowhere/env.tar.gz." in reason(server, "nowhere")


def test_a_worker_that_dies_comes_back_in_its_environment(server: Server) -> None:
    def worker() -> int:
        for process in server.children():
            with contextlib.suppress(psutil.Error):
                if "".join(process.cmdline()[:1]).startswith(str(server.directory / "made")):  # [] of a zombie
                    return process.pid
        return 0

    first = worker()
    assert first
    os.kill(first, signal.SIGKILL)
    until(lambda: worker() not in (0, first), SECONDS, "a new worker runs")
    assert ask(server, "folder") == f"folder {server.directory / 'made'}"


def test_an_edited_requirements_file_is_built_beside_what_serves(server: Server) -> None:
    model = server.repository / "new"
    server.edit("tidepool_fruit==2.0", "tidepool_fruit==1.0", model / "requirements.txt")
    until(lambda: ask(server, "new").startswith("1.0 "), SECONDS, "the model runs in the new environment")


def test_environments_in_use_stay_and_stale_ones_go(server: Server) -> None:
    def run(*arguments: str) -> list[str]:
        command = [sys.executable, "-m", "broker", "environments", *arguments]
        env = {**os.environ, **surroundings(server.directory)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.splitlines()

    listed = run()
    assert listed[0] == f"in {server.directory / 'cache' / 'tidepool' / 'environments'}:"
    source = server.repository / "packed" / "env.tar.gz"
    assert any(line.startswith("archive-") and line.endswith(f"made from {source}") for line in listed)
    old = str(server.repository / "old" / "requirements.txt")
    assert any(line.startswith("in use: requirements-") and old in line for line in run("--remove=0"))
    assert ask(server, "old").startswith("1.0 ")

"""Every example of the documentation runs and prints what its page says."""

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import server as settings
from tests.docs.blocks import ROOT, Block, Command, blocks, commands, matches
from tests.docs.conftest import WRITTEN, Run, is_script
from tests.support.server import Server
from tests.support.waiting import until

SETTLE_SECONDS = 20.0
"""How long the server may take to be what a command's output says."""

EXEMPT = {
    "make ": "installs into the checkout or runs the tests: what the gate does",
    "pip install": "installs into the environment of the tests",
    "docker ": "there is no Docker; tests/unit/scripts/test_dockerfiles.py and tests/e2e/test_tritonserver.py stand in",
}
"""Commands that are not run, by how they begin, and why."""
START = ("python -m broker -", ".venv/bin/python -m broker -")
"""Commands that run until they are stopped: their flags are read, by the code that the server reads them with."""

EXAMPLES = [b for b in blocks("python", "console") if not b.file.startswith(WRITTEN) and not is_script(b)]
COMMANDS = [command for block in blocks("console") for command in commands(block)]
STARTS = [command for command in COMMANDS if command.text.startswith(START)]


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_runs_and_prints_what_the_page_says(block: Block, run: Run) -> None:
    if block.language == "python":
        _check(run, [sys.executable, "-c", block.text], block.output, str(block))
        return
    for command in commands(block):
        if not command.text.startswith((*EXEMPT, *START)):
            if "curl" in command.text and shutil.which("curl") is None:
                pytest.skip("curl is not installed")
            _check(run, ["bash", "-e", "-o", "pipefail", "-c", command.text], command.output, f"{block} {command.text}")


def _check(run: Run, command: list[str], promised: str, where: str) -> None:
    """Run a command; where it prints what comes to be true in a moment, run it again until it does."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        done = run(command)
        if done.returncode == 0 and (not promised or matches(promised, done.stdout)):
            return
        if not promised or time.monotonic() > deadline:
            break
    assert done.returncode == 0, f"{where}: status {done.returncode}\n{done.stdout}{done.stderr}"
    pytest.fail(f"{where}: the page says\n{promised}\nbut it prints\n{done.stdout}")


@pytest.mark.parametrize("command", STARTS, ids=lambda command: f"{command.block}")
def test_commands_that_start_the_server_have_flags_that_it_takes(command: Command, clone: Path) -> None:
    words = shlex.split(command.text.replace("\\\n", " ").replace("=/models", f"={clone}/models"))
    for name in ("models", "more_models"):
        (clone / name).mkdir(exist_ok=True)
    before = Path.cwd()
    os.chdir(clone)
    try:
        settings.load(words[words.index("broker") + 1 :])
    finally:
        os.chdir(before)


def test_the_server_prints_the_tables_that_the_readme_shows(server: Server) -> None:
    shown = next(block for block in blocks("text") if block.page == ROOT / "README.md" and "| Option" in block.text)
    names = [line.split("|")[1].strip() for line in shown.text.splitlines() if line.startswith("| ")]
    until(lambda: "| Instance " in server.log(), SETTLE_SECONDS, "the tables are printed")
    printed = [line.split("|")[1].strip() for line in server.log().splitlines() if line.startswith("| ")]
    assert set(names) <= set(printed)


def test_the_request_that_the_readme_sends_is_the_scan_that_it_names() -> None:
    with Image.open(ROOT / "examples" / "data" / "scan_3.png") as image:
        ink = np.asarray(image.convert("L"), dtype=np.float32) / 255
    (tensor,) = json.loads((ROOT / "examples" / "data" / "scan_3.json").read_text())["inputs"]
    assert np.array(tensor["data"]).reshape(ink.shape) == pytest.approx(ink, abs=0.001)


def test_every_exempt_kind_of_command_is_there() -> None:
    unused = [start for start in EXEMPT if not any(command.text.startswith(start) for command in COMMANDS)]
    assert not unused


def test_every_python_block_is_run() -> None:
    """A block behind a comment that names a file is that file, so such a comment must not be there by chance."""
    assert all(b.file.startswith(WRITTEN) or is_script(b) for b in blocks("python") if b.file)

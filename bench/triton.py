"""The real tritonserver (with its Python backend) and perf_analyzer, from wheels on PyPI, to compare with.

    python -m bench.triton serve --model-repository=R --http-port=8000 ...    tritonserver, in the foreground
    python -m bench.triton perf -m identity -u localhost:8000 ...             perf_analyzer

Everything is kept in ~/.cache/tidepool-bench. Needs Python 3.11, for which the wheel brings a Python backend;
perf_analyzer needs the package libb64-0d as well.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

HOME = Path.home() / ".cache" / "tidepool-bench"
BACKENDS = HOME / "backends"
SERVER_PACKAGES = ["nvidia-pytriton==0.7.0", "numpy<2"]  # carries tritonserver 2.51.0 (24.10)
STUB = "triton_python_backend_stub"
PERF_ANALYZER = "tritonclient==2.50.0"  # the last wheel with the binary inside
PERF_PACKAGES = ["nvidia-cuda-runtime-cu12"]  # the binary is linked with it; no GPU is used


def python311() -> str:
    """A Python 3.11; SystemExit when there is none."""
    found = sys.executable if sys.hexversion >> 16 == 0x030B else shutil.which("python3.11")
    if found is None:
        raise SystemExit("The real Triton's wheel needs python3.11, which is not on the PATH.")
    return found


def site_packages() -> Path:
    """Where tritonserver lies; downloads about 100 MB the first time."""
    site = HOME / "venv" / "lib" / "python3.11" / "site-packages"
    done = HOME / "tritonserver.installed"
    with installing(done) as is_needed:
        if is_needed:
            subprocess.run([python311(), "-m", "venv", "--clear", str(HOME / "venv")], check=True)
            pip("install", *SERVER_PACKAGES)
            copy_backend(site / "pytriton" / "tritonserver")
    return site


@contextlib.contextmanager
def installing(done: Path) -> Iterator[bool]:
    """Whether something is still to be installed, in one process at a time; marked as done without an error."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_needed = not done.exists()
        if is_needed:
            print(f"Installing into {HOME}, once: {done.stem}", file=sys.stderr)
        yield is_needed
        done.touch()


def pip(*arguments: str) -> None:
    """Runs the pip of Triton's own environment."""
    python = str(HOME / "venv" / "bin" / "python")
    verb, *rest = arguments
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", verb, "-qq", *rest], check=True)


def copy_backend(triton: Path) -> None:
    """Puts the Python backend together: the wheel keeps the stub of each Python version apart from the library."""
    shutil.copytree(triton / "backends" / "python", BACKENDS / "python", dirs_exist_ok=True)
    shutil.copy2(triton / "python_backend_stubs" / "3.11" / STUB, BACKENDS / "python" / STUB)


def command(*flags: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment that start tritonserver with these flags."""
    site = site_packages()
    triton = site / "pytriton" / "tritonserver"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{site / 'nvidia_pytriton.libs'}:{python_library_directory()}",
        "PATH": f"{HOME / 'venv' / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(HOME / "venv"),
        "PYTHONPATH": str(site),  # of the stub: what models import
    }
    require_libraries(BACKENDS / "python" / STUB, environment, "libpython3.11")
    directories = [f"--backend-directory={BACKENDS}", f"--cache-directory={triton / 'caches'}"]
    return [str(triton / "bin" / "tritonserver"), *directories, *flags], environment


def python_library_directory() -> str:
    """Where libpython3.11.so lies, which the stub is linked with."""
    script = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    result = subprocess.run([python311(), "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout.strip()


def perf_analyzer() -> tuple[str, dict[str, str]]:
    """The binary and the environment it runs in; SystemExit when the system lacks a library."""
    site = site_packages()
    binary = HOME / "perf" / f"{PERF_ANALYZER.replace('==', '-')}.data" / "data" / "bin" / "perf_analyzer"
    with installing(HOME / "perf_analyzer.installed") as is_needed:
        if is_needed:
            pip("install", *PERF_PACKAGES)
            pip("download", "--no-deps", "--dest", str(HOME / "perf"), PERF_ANALYZER)
            with zipfile.ZipFile(next((HOME / "perf").glob("tritonclient-*.whl"))) as wheel:
                wheel.extractall(HOME / "perf")
            binary.chmod(0o755)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(site / "nvidia" / "cuda_runtime" / "lib")}
    require_libraries(binary, environment, "libb64-0d")
    return str(binary), environment


def require_libraries(binary: Path, environment: dict[str, str], package: str) -> None:
    """SystemExit naming Debian's package when a shared library of the binary is missing."""
    linked = subprocess.run(["ldd", binary], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    missing = [line.split()[0] for line in linked.stdout.splitlines() if "not found" in line]
    if missing:
        raise SystemExit(f"{binary.name} needs {', '.join(missing)}: apt-get install {package}")


def main() -> NoReturn:
    """Becomes the program that is asked for."""
    what, flags = sys.argv[1:2], sys.argv[2:]
    if what == ["serve"]:
        line, environment = command(*flags)
    elif what == ["perf"]:
        binary, environment = perf_analyzer()
        line = [binary, *flags]
    else:
        raise SystemExit(__doc__)
    os.execve(line[0], line, environment)


if __name__ == "__main__":
    main()

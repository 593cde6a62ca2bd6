"""Environments of Python models: the cache, archives, interpreters, and the commands that build one."""

import fcntl
import io
import os
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.environments import make_environment, pack
from workers.environments import EnvironmentFailed, interpreter, packages
from workers.environments.cache import Cache, default_root
from workers.environments.enter import Environment, locate, prepare, surroundings
from workers.environments.interpreter import Interpreter, check
from workers.environments.unpack import unpack

OURS = Interpreter("/python", (3, 11, 7), sys.implementation.cache_tag or "", (), True)
OTHER = Interpreter("/other", (3, 12, 1), "cpython-312", (), True)

# ----------------------------------------------------------------------------------------------- the cache


def fill(directory: Path) -> None:
    directory.mkdir()
    (directory / "file").write_text("content")


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(directory: Path) -> None:
        made.append(directory)
        fill(directory)

    cache = Cache(tmp_path / "cache")
    assert [cache.obtain("key", "source", make) for _ in range(3)] == [tmp_path / "cache" / "key"] * 3
    assert made == [tmp_path / "cache" / "key"]


def test_what_a_killed_build_has_left_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "half").touch()
    directory = Cache(tmp_path).obtain("key", "source", fill)
    assert not (directory / "half").exists()
    assert (directory / "file").exists()


def test_a_build_that_fails_is_tried_again(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        directory.mkdir()
        raise EnvironmentFailed("no")

    cache = Cache(tmp_path)
    with pytest.raises(EnvironmentFailed, match="no"):
        cache.obtain("key", "source", fail)
    assert not (tmp_path / "key").exists()
    assert (cache.obtain("key", "source", fill) / "file").exists()


def test_two_who_want_the_same_build_it_once(tmp_path: Path) -> None:
    made: list[int] = []
    is_making, may_finish = threading.Event(), threading.Event()

    def make(directory: Path) -> None:
        made.append(1)
        is_making.set()
        assert may_finish.wait(20)
        fill(directory)

    def obtain() -> None:
        found.append(Cache(tmp_path).obtain("key", "source", make))

    found: list[Path] = []
    threads = [threading.Thread(target=obtain) for _ in range(3)]
    threads[0].start()
    assert is_making.wait(20)
    for thread in threads[1:]:
        thread.start()
    may_finish.set()
    for thread in threads:
        thread.join(20)
    assert (found, made) == ([tmp_path / "key"] * 3, [1])


def test_an_environment_in_use_cannot_be_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.obtain("key", "source", fill)
    (entry,) = cache.entries()
    assert (entry.key, entry.source) == ("key", "source")
    assert entry.byte_size >= len("content")
    assert not cache.remove("key")
    (lock,) = [int(fd) for fd in os.listdir("/proc/self/fd") if _target(fd) == str(tmp_path / "key.lock")]
    assert os.get_inheritable(lock), "what this process becomes holds it on"
    fcntl.flock(lock, fcntl.LOCK_UN)
    assert cache.remove("key")
    assert list(cache.entries()) == []


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return ""


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_root() == Path("/c/tidepool/environments")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # does not count, says its specification
    monkeypatch.setenv("HOME", "/h")
    assert default_root() == Path("/h/.cache/tidepool/environments")


# ----------------------------------------------------------------------------------------------- archives


def archive(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """A tar file: (name, type, content or target) each."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                member.size = len(text)
            else:
                member.linkname = text
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_files_and_links_are_unpacked(tmp_path: Path) -> None:
    packed = archive(
        tmp_path / "env.tar.gz",
        ("bin/python", tarfile.SYMTYPE, "/usr/bin/python3"),
        ("lib64", tarfile.SYMTYPE, "lib"),
        ("hard", tarfile.LNKTYPE, "lib/file"),
        ("lib/file", tarfile.REGTYPE, "content"),
        ("empty", tarfile.DIRTYPE, ""),
    )
    unpack(packed, tmp_path / "to")
    assert os.readlink(tmp_path / "to" / "bin" / "python") == "/usr/bin/python3"
    assert (tmp_path / "to" / "lib64" / "file").read_text() == "content"
    assert (tmp_path / "to" / "hard").read_text() == "content"
    assert (tmp_path / "to" / "empty").is_dir()


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", tarfile.REGTYPE, "x")],
        [("a/../../evil", tarfile.REGTYPE, "x")],
        [("{outside}/evil", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "{outside}"), ("link/evil", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "{outside}"), ("link/evil", tarfile.SYMTYPE, "x")],
        [("link", tarfile.SYMTYPE, "{outside}"), ("link/deep/evil", tarfile.SYMTYPE, "x")],
        [("link", tarfile.SYMTYPE, "{outside}"), ("hard", tarfile.LNKTYPE, "link/secret")],
        [("hard", tarfile.LNKTYPE, "../outside/secret")],
        [("../evil", tarfile.LNKTYPE, "file"), ("file", tarfile.REGTYPE, "x")],
        [("../evil", tarfile.SYMTYPE, "file")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("device", tarfile.CHRTYPE, "")],
    ],
    ids=lambda members: ",".join(f"{name}:{kind.decode()}" for name, kind, _ in members),
)
def test_nothing_leaves_the_directory(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    before = sorted(path.name for path in outside.iterdir())
    where = str(outside)
    packed = archive(
        tmp_path / "env.tar.gz", *((n.format(outside=where), k, t.format(outside=where)) for n, k, t in members)
    )
    with pytest.raises((EnvironmentFailed, OSError)):
        unpack(packed, tmp_path / "to")
    assert sorted(path.name for path in outside.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env.tar.gz", "outside", "to"]


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "env.tar.gz").write_text("nonsense")
    with pytest.raises(EnvironmentFailed, match=r"env\.tar\.gz cannot be unpacked: "):
        unpack(tmp_path / "env.tar.gz", tmp_path / "to")


def test_an_archive_is_unpacked_once_until_it_changes(tmp_path: Path) -> None:
    packed = pack(make_environment(tmp_path / "env", "module", ""), tmp_path / "env.tar.gz")
    cache = Cache(tmp_path / "cache")
    first = prepare(Environment("archive", str(packed), "1", ""), cache)
    assert prepare(Environment("archive", str(packed), "1", ""), cache) == first
    assert prepare(Environment("archive", str(packed), "2", ""), cache) != first


# ----------------------------------------------------------------------------------------------- interpreters


def test_the_servers_own_python_is_found() -> None:
    found = interpreter.find("")
    assert found.version == sys.version_info[:3]
    assert found.takes_our_extensions
    assert interpreter.find(f"3.{sys.version_info[1]}").version == found.version


def test_a_version_that_is_not_there_is_told() -> None:
    with pytest.raises(EnvironmentFailed, match=r"there is no Python 3\.98 on this machine"):
        interpreter.find("3.98")


def test_an_old_python_and_one_without_what_a_worker_needs_are_refused() -> None:
    with pytest.raises(EnvironmentFailed, match=r"is too old: 3\.11 is the oldest"):
        check(OURS._replace(version=(3, 10, 2)))
    with pytest.raises(
        EnvironmentFailed, match=r"Python 3\.12\.1 of /other is not the server's .* it lacks zmq, numpy"
    ):
        check(OTHER._replace(missing=("zmq", "numpy")))
    check(OTHER)
    check(OURS._replace(missing=("zmq", "numpy")))  # they are lent


def test_only_what_a_worker_needs_is_lent() -> None:
    lent = locate(["shm", "numpy", "no_such_package"])
    assert set(lent) == {"shm", "numpy"}
    assert all((Path(directory) / name / "__init__.py").exists() for name, directory in lent.items())


def test_variables_are_those_of_an_activated_environment() -> None:
    ours = {"PATH": "/bin", "PYTHONHOME": "/h", "OTHER": "kept", "LD_LIBRARY_PATH": "/l"}
    built = surroundings(Path("/env"), False, ours)
    assert built == {"PATH": "/env/bin:/bin", "OTHER": "kept", "LD_LIBRARY_PATH": "/l", "VIRTUAL_ENV": "/env"}
    assert surroundings(Path("/env"), True, ours)["LD_LIBRARY_PATH"] == "/env/lib:/l"
    assert surroundings(Path("/env"), True, {})["PATH"] == "/env/bin"


# ----------------------------------------------------------------------------------------------- packages


def test_needs_are_those_of_the_project() -> None:
    assert sorted(one.split(">")[0] for one in packages.needs()) == ["msgspec", "numpy", "pyzmq"]


def test_the_digest_is_of_all_that_the_file_includes(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r more.txt\n--constraint=limits.txt\nnumpy\n")
    (tmp_path / "more.txt").write_text("-r requirements.txt\n")
    (tmp_path / "limits.txt").write_text("numpy<3\n")
    file = tmp_path / "requirements.txt"
    digests = {packages.digest(file, OURS), packages.digest(file, OURS), packages.digest(file, OTHER)}
    assert len(digests) == 2
    for name in ("requirements.txt", "more.txt", "limits.txt"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# new\n")
        digests.add(packages.digest(file, OURS))
    assert len(digests) == 5


@given(st.text(), st.text())
def test_no_two_texts_have_one_digest(tmp_path_factory: pytest.TempPathFactory, one: str, two: str) -> None:
    directory = tmp_path_factory.mktemp("digest")
    found = []
    for text in (one, two):
        (directory / "requirements.txt").write_bytes(text.encode())
        found.append(packages.digest(directory / "requirements.txt", OURS))
    assert (found[0] == found[1]) == (one == two)


def commands(file: Path, python: Interpreter, uv: str) -> list[str]:
    return [" ".join(command) for command in packages.steps(file, python, Path("/env"), uv)]


def test_requirements_are_installed_by_uv_or_pip(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    assert commands(file, OURS, "/uv") == [
        "/uv venv --quiet --no-project --python /python /env",
        f"/uv pip install --python /env/bin/python -r {file}",
    ]
    options = "install --no-input --disable-pip-version-check --progress-bar=off"
    assert commands(file, OURS, "") == [
        "/python -m venv --without-pip /env",
        f"/python -m pip --python /env/bin/python {options} -r {file}",
    ]
    assert commands(file, OURS._replace(has_pip=False), "") == [
        "/python -m venv /env",
        f"/env/bin/python -m pip {options} -r {file}",
    ]


def test_another_python_gets_what_a_worker_needs(tmp_path: Path) -> None:
    needs = " ".join(packages.needs())
    assert commands(tmp_path / "requirements.txt", OTHER, "")[-1].endswith(needs)
    assert commands(tmp_path / "requirements.txt", OTHER, "/uv")[-1].endswith(needs)
    assert commands(tmp_path / "uv.lock", OTHER, "/uv")[-1].endswith(needs)


def test_a_lock_file_is_for_uv(tmp_path: Path) -> None:
    assert commands(tmp_path / "uv.lock", OURS, "/uv")[1:] == [
        "/uv sync --frozen --no-dev --no-install-project --python /env/bin/python"
    ]
    with pytest.raises(EnvironmentFailed, match=r"uv\.lock needs uv on the PATH"):
        commands(tmp_path / "uv.lock", OURS, "")


def test_pip_installs_the_dependencies_of_a_project(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\nname = "m"\ndependencies = ["numpy>=2", "--index-url=http://evil"]\n')
    assert commands(file, OURS, "")[-1].endswith("--progress-bar=off numpy>=2")
    file.write_text("[tool.x]\n")
    with pytest.raises(EnvironmentFailed, match=r"has no \[project\]"):
        commands(file, OURS, "")

"""Models whose files have to be what somebody has said they are."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from configs.description import ModelDescription
from configs.errors import ConfigError
from configs.model import describe
from configs.server import ServerConfig

CONFIG = """
backend: "python"
input { name: "IN" data_type: TYPE_FP32 dims: -1 }
output { name: "OUT" data_type: TYPE_FP32 dims: -1 }
"""
CONTENT = b"pass"
MD5 = hashlib.md5(CONTENT).hexdigest()


def agent(name: str, parameters: dict[str, str]) -> str:
    """An agent of a model's configuration."""
    pairs = "".join(f'parameters {{ key: "{key}" value: "{value}" }} ' for key, value in parameters.items())
    return f'model_repository_agents {{ agents {{ name: "{name}" {pairs}}} }}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "m"
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_bytes(CONTENT)
    (directory / "config.pbtxt").write_text(CONFIG)
    return directory


def described(model: Path, more: str = "", key: str = "") -> ModelDescription:
    if more:
        (model / "config.pbtxt").write_text(CONFIG + more)
    return describe(model, None, ServerConfig(model_signature_key=key), ())


def test_a_file_with_the_right_checksum_is_loaded_and_told_to_the_workers(model: Path) -> None:
    found = described(model, agent("checksum", {"MD5:1/model.py": MD5.upper()}))
    assert found.digests == {"1/model.py": f"MD5:{MD5}"}
    assert ModelDescription.from_wire(found.to_wire()) == found


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"MD5:1/model.py": "0"}, f"^Mismatched MD5 hash for file 1/model.py, expect: 0, got: {MD5}$"),
        ({"SHA1:1/model.py": "0"}, "^Unsupported checksum algorithm: SHA1$"),
        ({"model.py": "0"}, "^failed to parse key: model.py$"),
        ({"MD5:other.py": "0"}, "other.py: cannot be read: No such file"),
        ({"MD5:../other/x": "0"}, "'../other/x' of a file to be checked must stay within the model directory"),
        ({"MD5:/etc/passwd": "0"}, "'/etc/passwd' of a file to be checked must stay within the model directory"),
    ],
)
def test_a_model_whose_checksum_is_another_is_refused(model: Path, parameters: dict[str, str], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        described(model, agent("checksum", parameters))


def test_a_file_that_has_changed_is_noticed(model: Path) -> None:
    described(model, agent("checksum", {"MD5:1/model.py": MD5}))
    (model / "1" / "model.py").write_bytes(b"evil")
    with pytest.raises(ConfigError, match=r"Mismatched MD5 hash for file 1/model\.py"):
        described(model)


def test_an_agent_that_is_not_there(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"pbtxt:5:34: unable to find repository agent 'checksums'.*'checksum'"):
        described(model, agent("checksums", {}))


# ----------------------------------------------------------------------------------------------- signatures

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "public.pem").write_bytes(pem(PRIVATE))
    return str(tmp_path / "public.pem")


def sign(model: Path, key: Ed25519PrivateKey = PRIVATE) -> None:
    """As `sha256sum` and openssl would."""
    files = [file for file in sorted(model.rglob("*")) if file.is_file() and not file.name.startswith("MANIFEST")]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  ./{file.relative_to(model)}\n" for file in files]
    (model / "MANIFEST.sha256").write_text("".join(lines))
    (model / "MANIFEST.sha256.sig").write_bytes(key.sign("".join(lines).encode()))


def test_a_signed_model_is_loaded(model: Path, key: str) -> None:
    sign(model)
    assert set(described(model, key=key).digests) == {"1/model.py", "config.pbtxt"}
    (model / "1" / "__pycache__").mkdir()
    (model / "1" / "__pycache__" / "model.pyc").touch()
    (model / ".config.pbtxt.swp").touch()
    assert described(model, key=key).digests["1/model.py"].startswith("SHA256:")


def test_the_agent_may_be_named(model: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="needs the server's --model-signature-key"):
        described(model, agent("signature", {}))
    sign(model)
    assert described(model, key=key).digests


def other_file(model: Path) -> None:
    (model / "1" / "model.py").write_bytes(b"evil")


def more_files(model: Path) -> None:
    (model / "1" / "numpy.py").write_bytes(b"evil")


def fewer_files(model: Path) -> None:
    (model / "1" / "model.py").unlink()


def other_configuration(model: Path) -> None:
    (model / "config.pbtxt").write_text(CONFIG + "max_batch_size: 2")


def other_manifest(model: Path) -> None:
    manifest = model / "MANIFEST.sha256"
    manifest.write_text(manifest.read_text().replace("a", "b"))


def other_key(model: Path) -> None:
    sign(model, Ed25519PrivateKey.from_private_bytes(b"x" * 32))


def no_manifest(model: Path) -> None:
    (model / "MANIFEST.sha256").unlink()


def no_lines(model: Path) -> None:
    (model / "MANIFEST.sha256").write_text("nonsense")
    (model / "MANIFEST.sha256.sig").write_bytes(PRIVATE.sign(b"nonsense"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (other_file, "^Mismatched SHA256 hash for file 1/model.py, expect: "),
        (more_files, "^file 1/numpy.py is not in the signed MANIFEST.sha256$"),
        (fewer_files, "1/model.py: cannot be read: No such file"),
        (other_configuration, "^Mismatched SHA256 hash for file config.pbtxt"),
        (other_manifest, "^MANIFEST.sha256.sig is no signature of MANIFEST.sha256 by the key .*public.pem$"),
        (other_key, "^MANIFEST.sha256.sig is no signature"),
        (no_manifest, "MANIFEST.sha256: cannot be read"),
        (no_lines, "^MANIFEST.sha256:1: expected a digest and a path"),
    ],
)
def test_a_model_that_is_not_as_it_was_signed_is_refused(
    model: Path, key: str, change: Callable[[Path], None], error: str
) -> None:
    sign(model)
    change(model)
    with pytest.raises(ConfigError, match=error):
        described(model, key=key)


@pytest.mark.parametrize(
    ("content", "error"), [(b"nonsense", "is no public key"), (pem(X25519PrivateKey.generate()), "is no Ed25519 key")]
)
def test_a_key_that_is_none(model: Path, key: str, content: bytes, error: str) -> None:
    sign(model)
    Path(key).write_bytes(content)
    with pytest.raises(ConfigError, match=error):
        described(model, key=key)

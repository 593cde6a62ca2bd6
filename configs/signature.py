"""Signed models: a manifest with the SHA-256 digest of every file of a model, and an Ed25519 signature of it.

The manifest is what `sha256sum` prints. The key is the server's: one that a model brought would prove nothing.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from configs import digests, layout
from configs.errors import ConfigError, one_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST, SIGNATURE = "MANIFEST.sha256", "MANIFEST.sha256.sig"

_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")


def verify(directory: Path, key: Path) -> dict[str, str]:
    """Check a model; the digests of its files, as `SHA256:...` by path. Raises ConfigError, OSError."""
    manifest = (directory / MANIFEST).read_bytes()
    _check_signature(manifest, (directory / SIGNATURE).read_bytes(), key)
    listed = dict(_entries(manifest))
    unlisted = sorted({*layout.files(directory)} - {*listed, MANIFEST, SIGNATURE})
    if unlisted:
        raise ConfigError(f"file {one_line(unlisted[0])} is not in the signed {MANIFEST}")
    return {name: digests.check(directory, name, "SHA256", digest) for name, digest in listed.items()}


def _check_signature(manifest: bytes, signature: bytes, key: Path) -> None:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # only signed models need it
    except ImportError:
        raise ConfigError("signatures need the package 'cryptography': pip install 'tidepool[signature]'") from None
    try:
        _read(key).verify(signature, manifest)
    except InvalidSignature:
        raise ConfigError(f"{SIGNATURE} is no signature of {MANIFEST} by the key {key}") from None


def _read(key: Path) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        found = load_pem_public_key(key.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{key} is no public key (PEM): {error}") from None
    if not isinstance(found, Ed25519PublicKey):
        raise ConfigError(f"{key} is no Ed25519 key")
    return found


def _entries(manifest: bytes) -> list[tuple[str, str]]:
    """Path and digest of each line. Raises ConfigError."""
    found = []
    for number, line in enumerate(manifest.decode("utf-8", "replace").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{MANIFEST}:{number}: expected a digest and a path, as sha256sum prints them")
        found.append((match[2], match[1]))
    return found

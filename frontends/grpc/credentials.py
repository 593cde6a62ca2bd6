"""TLS: the server's certificate, and the authority that clients' certificates have to come from."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc


def server_credentials(options: Mapping[str, Any]) -> grpc.ServerCredentials | None:
    """The credentials for the server's options, None for plain text. Raises OSError for files that are no such things.

    `grpc_use_ssl_mutual` implies `grpc_use_ssl`: clients have to show a certificate of the root's.
    """
    is_mutual = options["grpc_use_ssl_mutual"]
    if not is_mutual and not options["grpc_use_ssl"]:
        return None
    certificate, key, root = (options[f"grpc_{name}"] for name in ("server_cert", "server_key", "root_cert"))
    _check(certificate, key, root)
    return grpc.ssl_server_credentials(
        [(Path(key).read_bytes(), Path(certificate).read_bytes())],
        root_certificates=Path(root).read_bytes() if root else None,
        require_client_auth=is_mutual,
    )


def _check(certificate: str, key: str, root: str) -> None:
    """Read the files as gRPC will, which does not say what is wrong with them. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise OSError(f"no certificate '{certificate}' with the private key '{key}': {error}") from None
    if root:
        try:
            context.load_verify_locations(root)
        except OSError as error:
            raise OSError(f"no root certificate '{root}': {error}") from None

"""TLS: the server's certificate, and the authority that clients' certificates have to come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc


def server_credentials(options: Mapping[str, Any]) -> grpc.ServerCredentials | None:
    """The credentials for the server's options, None for plain text. Raises OSError for files that cannot be read.

    `grpc_use_ssl_mutual` implies `grpc_use_ssl`: clients have to show a certificate of the root's.
    """
    is_mutual = options.get("grpc_use_ssl_mutual", False)
    if not is_mutual and not options.get("grpc_use_ssl", False):
        return None
    key, certificate = (Path(options[name]).read_bytes() for name in ("grpc_server_key", "grpc_server_cert"))
    root = options.get("grpc_root_cert", "")
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=Path(root).read_bytes() if root else None,
        require_client_auth=is_mutual,
    )

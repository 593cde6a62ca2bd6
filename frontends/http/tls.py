"""HTTPS: the server's certificate, and the authority that clients' certificates have to come from."""

import ssl
from collections.abc import Mapping
from typing import Any


def tls_context(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    """The context for the server's options, None for plain HTTP. Raises OSError for files that are no such things.

    With `http_client_ca` clients have to show a certificate of that authority's.
    """
    if not options["http_use_ssl"]:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options["http_server_cert"], options["http_server_key"])
    if options["http_client_ca"]:
        context.load_verify_locations(options["http_client_ca"])
        context.verify_mode = ssl.CERT_REQUIRED
    return context

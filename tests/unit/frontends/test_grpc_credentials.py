"""The certificates of the gRPC server, and what is said of files that are none."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from frontends.grpc.credentials import server_credentials
from tests.support.certificates import make_certificates


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = make_certificates(tmp_path_factory.mktemp("certificates"))
    return {
        "grpc_use_ssl": True,
        "grpc_use_ssl_mutual": False,
        "grpc_server_cert": str(directory / "server.pem"),
        "grpc_server_key": str(directory / "server.key"),
        "grpc_root_cert": str(directory / "ca.pem"),
    }


@pytest.mark.parametrize(
    ("changes", "is_tls"),
    [
        ({}, True),
        ({"grpc_root_cert": ""}, True),
        ({"grpc_use_ssl": False}, False),
        ({"grpc_use_ssl": False, "grpc_use_ssl_mutual": True}, True),
    ],
)
def test_options_ask_for_tls(options: dict[str, Any], changes: dict[str, Any], is_tls: bool) -> None:
    assert isinstance(server_credentials(options | changes), grpc.ServerCredentials) is is_tls


@pytest.mark.parametrize("content", [None, "", "no certificate"])
@pytest.mark.parametrize("name", ["grpc_server_cert", "grpc_server_key", "grpc_root_cert"])
def test_files_that_are_none_are_named(options: dict[str, Any], tmp_path: Path, name: str, content: str | None) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OSError, match=r"^no (root )?certificate ") as caught:
        server_credentials(options | {name: str(path)})
    assert str(path) in str(caught.value)


def test_a_key_of_another_certificate_is_refused(options: dict[str, Any]) -> None:
    other = options["grpc_server_key"].replace("server.key", "client.key")
    with pytest.raises(OSError, match="with the private key"):
        server_credentials(options | {"grpc_server_key": other})

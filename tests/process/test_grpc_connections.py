"""The gRPC frontend's connections: TLS, compression on the wire, age, pings."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.support.certificates import make_certificates
from tests.support.grpc_server import SECONDS, GrpcServer
from tests.support.waiting import until

SERVICE = "/inference.GRPCInferenceService"
BYTES = 400_000


def zeros() -> Any:
    request = service_pb2.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(BYTES)])
    request.inputs.add(name="A", datatype="FP32", shape=[BYTES // 4])
    return request


# ----------------------------------------------------------------------------------------------- compression


class Meter:
    """Passes connections on to an address and counts what comes back."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.received = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for pair in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.received += len(data) if counts else 0
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # ends the other direction, too
        source.close()


IDENTITY, DEFLATE, GZIP = 1, 2, 4  # gRPC's bits for what a client accepts


@pytest.mark.parametrize("level", ["none", "low", "medium", "high"])
def test_responses_are_compressed_as_far_as_the_client_accepts_it(level: str) -> None:
    with (
        GrpcServer(grpc_infer_response_compression_level=level) as server,
        contextlib.closing(Meter(server.address)) as meter,
    ):
        for accepted in (IDENTITY, IDENTITY | DEFLATE, IDENTITY | GZIP, IDENTITY | DEFLATE | GZIP):
            options = [("grpc.compression_enabled_algorithms_bitset", accepted)]
            with grpc.insecure_channel(meter.address, options) as channel:
                for sizes in (_unary(channel, meter), _streamed(channel, meter)):
                    is_compressed = level != "none" and accepted != IDENTITY
                    assert sizes == (BYTES, is_compressed)


def _unary(channel: grpc.Channel, meter: Meter) -> tuple[int, bool]:
    before = meter.received
    response = channel.unary_unary(f"{SERVICE}/ModelInfer")(zeros().SerializeToString(), timeout=SECONDS)
    answer = service_pb2.ModelInferResponse.FromString(response)
    return len(answer.raw_output_contents[0]), meter.received - before < BYTES // 10


def _streamed(channel: grpc.Channel, meter: Meter) -> tuple[int, bool]:
    before = meter.received
    call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    (response,) = call(iter([zeros().SerializeToString()]), timeout=SECONDS)
    answer = service_pb2.ModelStreamInferResponse.FromString(response).infer_response
    return len(answer.raw_output_contents[0]), meter.received - before < BYTES // 10


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(algorithm: str) -> None:
    array = np.arange(100_000, dtype=np.float32)
    given = triton.InferInput("A", [100_000], "FP32")
    given.set_data_from_numpy(array)
    with GrpcServer() as server, triton.InferenceServerClient(server.address) as client:
        result = client.infer("echo", [given], compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("A"), array)


# ----------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def options_of(certificates: Path, **more: Any) -> dict[str, Any]:
    server = {
        f"grpc_server_{what}": str(certificates / f"server.{end}") for what, end in (("cert", "pem"), ("key", "key"))
    }
    return {**server, "grpc_root_cert": "", **more}


def credentials_of(certificates: Path, with_certificate: bool = False) -> grpc.ChannelCredentials:
    root, key, certificate = ((certificates / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    return grpc.ssl_channel_credentials(root, *((key, certificate) if with_certificate else ()))


def test_tls(certificates: Path) -> None:
    options = options_of(certificates, grpc_use_ssl=True)
    with GrpcServer(credentials_of(certificates), **options) as server:
        with triton.InferenceServerClient(
            server.address, ssl=True, root_certificates=str(certificates / "ca.pem")
        ) as client:
            assert client.is_server_live()
            assert client.infer("echo", []).get_response().model_name == "echo"
        with triton.InferenceServerClient(server.address) as plain, pytest.raises(InferenceServerException) as caught:
            plain.is_server_live()
        assert caught.value.status() == "StatusCode.UNAVAILABLE"


def test_mutual_tls_asks_clients_for_their_certificate(certificates: Path) -> None:
    options = options_of(certificates, grpc_use_ssl_mutual=True, grpc_root_cert=str(certificates / "ca.pem"))
    files = {
        "root_certificates": str(certificates / "ca.pem"),
        "private_key": str(certificates / "client.key"),
        "certificate_chain": str(certificates / "client.pem"),
    }
    with GrpcServer(credentials_of(certificates, with_certificate=True), **options) as server:
        with triton.InferenceServerClient(server.address, ssl=True, **files) as client:
            assert client.is_server_live()
        files |= {"private_key": None, "certificate_chain": None}
        with (
            triton.InferenceServerClient(server.address, ssl=True, **files) as unknown,
            pytest.raises(InferenceServerException) as caught,
        ):
            unknown.is_server_live()
        assert caught.value.status() == "StatusCode.UNAVAILABLE"


# ----------------------------------------------------------------------------------------------- age and pings


def test_a_connection_lives_as_long_as_it_may() -> None:
    states: list[grpc.ChannelConnectivity] = []
    options = {"grpc_max_connection_age": 300, "grpc_max_connection_age_grace": 300}
    with GrpcServer(**options) as server, server.channel() as channel:
        channel.subscribe(states.append, try_to_connect=True)
        live = channel.unary_unary(f"{SERVICE}/ServerLive")
        live(b"", timeout=SECONDS)
        until(lambda: grpc.ChannelConnectivity.IDLE in states[1:], SECONDS, "the server has closed the connection")
        live(b"", timeout=SECONDS)  # on a new connection


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7  # types of HTTP/2 frames


def frame(kind: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The type and payload of each frame that arrives."""
    with connection.makefile("rb") as stream:
        while head := stream.read(9):
            yield head[3], stream.read(int.from_bytes(head[:3], "big"))


def answers_to_pings(server: GrpcServer, count: int, last: int) -> list[tuple[int, bytes]]:
    """What comes back of so many pings: their answers and a goodbye, up to the `last` of these or the end."""
    host, port = server.address.split(":")
    told: list[tuple[int, bytes]] = []
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        pings = b"".join([frame(PING, number.to_bytes(8, "big")) for number in range(count)])
        connection.sendall(PREFACE + frame(SETTINGS) + pings)
        for kind, payload in frames(connection):
            if kind in (PING, GOAWAY):
                told.append((kind, payload))
            if (kind, payload) == (last, (count - 1).to_bytes(8, "big")) or kind == last == GOAWAY:
                break
    return told


def test_too_many_pings_close_the_connection() -> None:
    with GrpcServer() as server:
        kind, payload = answers_to_pings(server, 20, GOAWAY)[-1]
    assert kind == GOAWAY
    assert payload.endswith(b"too_many_pings")


def test_pings_may_be_permitted() -> None:
    options = {"grpc_http2_max_ping_strikes": 0}  # any number
    with GrpcServer(**options) as server:
        assert [kind for kind, _ in answers_to_pings(server, 20, PING)] == [PING] * 20

"""The server's options in gRPC's terms."""

import pytest

from frontends.grpc.channel import channel_arguments

OPTIONS = {
    "grpc_keepalive_time": 1,
    "grpc_keepalive_timeout": 2,
    "grpc_keepalive_permit_without_calls": True,
    "grpc_http2_max_pings_without_data": 0,
    "grpc_http2_min_recv_ping_interval_without_data": 4,
    "grpc_http2_max_ping_strikes": 5,
    "grpc_max_connection_age": 0,
    "grpc_max_connection_age_grace": 7,
    "grpc_infer_response_compression_level": "none",
}


def test_options_become_channel_arguments() -> None:
    assert dict(channel_arguments(OPTIONS)) == {
        "grpc.keepalive_time_ms": 1,
        "grpc.keepalive_timeout_ms": 2,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.http2.min_ping_interval_without_data_ms": 4,
        "grpc.http2.max_ping_strikes": 5,
        "grpc.max_connection_age_grace_ms": 7,
        "grpc.default_compression_level": 0,
        "grpc.so_reuseport": 1,
        "grpc.max_receive_message_length": 2**31 - 1,
        "grpc.max_send_message_length": 2**31 - 1,
    }


@pytest.mark.parametrize(("name", "level"), [("none", 0), ("low", 1), ("medium", 2), ("high", 3)])
def test_compression_levels_are_grpcs(name: str, level: int) -> None:
    arguments = dict(channel_arguments(OPTIONS | {"grpc_infer_response_compression_level": name}))
    assert arguments["grpc.default_compression_level"] == level

"""The server's options in gRPC's terms."""

from collections.abc import Mapping
from typing import Any

MAX_MESSAGE = 2**31 - 1
"""Bytes of the longest message, in both directions."""

_COMPRESSION = ("none", "low", "medium", "high")
"""Levels in gRPC's order; it turns them into gzip (low) or deflate, as far as the client accepts these."""

_ARGUMENTS = {
    "grpc_keepalive_time": "grpc.keepalive_time_ms",
    "grpc_keepalive_timeout": "grpc.keepalive_timeout_ms",
    "grpc_keepalive_permit_without_calls": "grpc.keepalive_permit_without_calls",
    "grpc_http2_max_pings_without_data": "grpc.http2.max_pings_without_data",
    "grpc_http2_min_recv_ping_interval_without_data": "grpc.http2.min_ping_interval_without_data_ms",
    "grpc_http2_max_ping_strikes": "grpc.http2.max_ping_strikes",
}
_LIMITS = {
    "grpc_max_connection_age": "grpc.max_connection_age_ms",
    "grpc_max_connection_age_grace": "grpc.max_connection_age_grace_ms",
}
_FIXED = {
    "grpc.so_reuseport": 1,  # several frontends listen on one port
    "grpc.max_receive_message_length": MAX_MESSAGE,
    "grpc.max_send_message_length": MAX_MESSAGE,
}


def channel_arguments(options: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What `grpc.aio.server` takes as options; of the limits, 0 is gRPC's default: none."""
    arguments = {name: int(options[option]) for option, name in _ARGUMENTS.items()}
    arguments |= {name: int(options[option]) for option, name in _LIMITS.items() if options[option]}
    level = _COMPRESSION.index(options["grpc_infer_response_compression_level"])
    return [*arguments.items(), ("grpc.default_compression_level", level), *_FIXED.items()]

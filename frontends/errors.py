"""What the neutral error codes are called in each protocol, and the exception that carries one out of a request."""

from broker.messages import ErrorCode

HTTP_STATUS: dict[int, int] = {
    ErrorCode.OK: 200,
    ErrorCode.UNKNOWN: 400,
    ErrorCode.INTERNAL: 500,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.INVALID_ARG: 400,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.UNSUPPORTED: 501,
    ErrorCode.ALREADY_EXISTS: 400,
    ErrorCode.CANCELLED: 400,
}
"""HTTP status by code."""

GRPC_STATUS: dict[int, str] = {
    ErrorCode.OK: "OK",
    ErrorCode.UNKNOWN: "UNKNOWN",
    ErrorCode.INTERNAL: "INTERNAL",
    ErrorCode.NOT_FOUND: "NOT_FOUND",
    ErrorCode.INVALID_ARG: "INVALID_ARGUMENT",
    ErrorCode.UNAVAILABLE: "UNAVAILABLE",
    ErrorCode.UNSUPPORTED: "UNIMPLEMENTED",
    ErrorCode.ALREADY_EXISTS: "ALREADY_EXISTS",
    ErrorCode.CANCELLED: "CANCELLED",
}
"""Name of the gRPC status by code."""


class RequestError(Exception):
    """A request cannot be served; `message` is what the client is told."""

    def __init__(self, code: int, message: str) -> None:
        """`code` is an ErrorCode, also as the plain number of a message."""
        super().__init__(message)
        self.code = code
        self.message = message

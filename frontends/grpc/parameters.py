"""Parameters in gRPC's form: InferParameter, a oneof of scalars."""

from collections.abc import Iterator, Mapping

from broker.messages import ErrorCode, Parameters
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.parameters import NO_PARAMETERS, RequestParameters, read

EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
"""The one name beginning with `triton_` that clients may use; it means something for streams only."""
_UINT64 = 2**64 - 1


class _Reader:
    """Reads InferParameter values; see `frontends.parameters.Reader`."""

    reserved = (
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
        f"'triton_' are allowed: {EMPTY_FINAL_RESPONSE}"
    )

    def correlation_id(self, name: str, value: ProtoMessage) -> int | str:
        """From int64_param, whose negative numbers stand for the upper half of unsigned ones, or string_param."""
        match value.WhichOneof("parameter_choice"):
            case "int64_param":
                return int(value.int64_param) & _UINT64
            case "string_param":
                return str(value.string_param)
            case _:
                raise _wrong_type(name, "int64_param or string_param.")

    def flag(self, name: str, value: ProtoMessage) -> bool:
        """From bool_param."""
        if value.WhichOneof("parameter_choice") != "bool_param":
            raise _wrong_type(name, "bool_param.")
        return bool(value.bool_param)

    def priority(self, name: str, value: ProtoMessage) -> int:
        """From uint64_param, or int64_param if not negative."""
        match value.WhichOneof("parameter_choice"):
            case "int64_param":
                if value.int64_param < 0:
                    raise RequestError(ErrorCode.INVALID_ARG, f"invalid value for '{name}', expected value >= 0.")
                return int(value.int64_param)
            case "uint64_param":
                return int(value.uint64_param)
            case _:
                raise _wrong_type(name, "int64_param or uint64_param.")

    def timeout(self, name: str, value: ProtoMessage) -> int:
        """From int64_param; negative numbers are huge unsigned ones."""
        if value.WhichOneof("parameter_choice") != "int64_param":
            raise _wrong_type(name, "int64_param.")
        return int(value.int64_param) & _UINT64

    def custom(self, name: str, value: ProtoMessage) -> str | int | float | bool:
        """From any field but uint64_param."""
        match value.WhichOneof("parameter_choice"):
            case "string_param":
                return str(value.string_param)
            case "int64_param":
                return int(value.int64_param)
            case "bool_param":
                return bool(value.bool_param)
            case "double_param":
                return float(value.double_param)
            case _:
                raise _wrong_type(name, "int64_param, bool_param, or string_param.")


_READER = _Reader()


def read_parameters(parameters: Mapping[str, ProtoMessage]) -> RequestParameters:
    """The meaning of a request's parameters. Raises RequestError."""
    return read(_without_stream_parameters(parameters), _READER) if parameters else NO_PARAMETERS


def enables_empty_final_response(parameters: Mapping[str, ProtoMessage]) -> bool:
    """Whether a stream is to say when a request's responses have come to an end, even if only to say that."""
    return EMPTY_FINAL_RESPONSE in parameters and bool(parameters[EMPTY_FINAL_RESPONSE].bool_param)


def write_parameters(parameters: Parameters, to: Mapping[str, ProtoMessage]) -> None:
    """Add a response's parameters to the map `to`."""
    for name, value in parameters.items():
        match value:
            case bool():
                to[name].bool_param = value
            case int():
                to[name].int64_param = value
            case float():
                to[name].double_param = value
            case _:
                to[name].string_param = value


def _without_stream_parameters(parameters: Mapping[str, ProtoMessage]) -> Iterator[tuple[str, ProtoMessage]]:
    for name, value in parameters.items():
        if name != EMPTY_FINAL_RESPONSE:
            yield name, value
        elif value.WhichOneof("parameter_choice") != "bool_param":
            raise _wrong_type(name, "bool_param.")


def _wrong_type(name: str, expected: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARG, f"invalid value type for '{name}' parameter, expected {expected}")

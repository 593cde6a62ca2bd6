"""Is this request one that the model can execute? Pure: request metadata in, the backend's view of it out.

The checks and their order are Triton's: outputs, number of inputs, names, batch dimension, batch size, datatype,
shape, byte size. Triton looks only at the number of inputs; we look at which are missing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from broker.messages import ErrorCode, Infer, ProtocolError
from configs.description import TensorSpec
from shm.datatypes import DATATYPES, ELEMENT_SIZE, expected_byte_size
from shm.ref import TensorRef

_BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. To give the full shape in the dims of the config, set max_batch_size to zero."
)


_PLACE = TensorRef._fields.index("data")  # what comes before it describes the tensor
KNOWN = 1024
"""Kinds of valid requests that are remembered for each model."""


class Rejected(Exception):
    """The request is refused; `code` and the text go to the client."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INVALID_ARG) -> None:
        """`message` is complete, with the request id where Triton puts one."""
        super().__init__(message)
        self.code = code


class Signature(NamedTuple):
    """What a model accepts and returns; `max_batch_size` 0 means that there is no batch dimension."""

    model: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Accepted(NamedTuple):
    """A valid request: its inputs as the backend wants them, and its batch size (1 where there is none)."""

    inputs: tuple[TensorRef, ...]
    batch: int


def prefix(request_id: str) -> str:
    """The words that Triton puts before errors about one request."""
    return f"[request id: {request_id or '<id_unknown>'}] "


def validate(signature: Signature, request: Infer) -> Accepted:
    """Check a request against its model. Raises Rejected, ProtocolError."""
    tag = prefix(request.request_id)
    inputs = request.inputs
    if request.is_raw:
        if len(inputs) != 1:
            raise ProtocolError(f"a raw request with {len(inputs)} inputs")
        inputs = (_deduce(signature, inputs[0], tag),)
    _check_outputs(signature, request.outputs)
    _check_inputs(signature, [ref.name for ref in inputs], tag)
    specs = {spec.name: spec for spec in signature.inputs}
    batch = _batch(signature, inputs, tag)
    for ref in inputs:
        _check_tensor(signature, specs[ref.name], ref, tag)
    return Accepted(tuple([_reshaped(signature, specs[ref.name], ref) for ref in inputs]), batch)


class Validator:
    """Validates requests to one model; like requests, of which there are many, are looked at once."""

    def __init__(self, signature: Signature) -> None:
        """Nothing is known yet."""
        self._signature = signature
        self._known: dict[tuple[object, ...], int] = {}
        self.reshapes_inputs = any(spec.reshape is not None for spec in signature.inputs)
        self.reshapes_outputs = any(spec.reshape is not None for spec in signature.outputs)

    def validate(self, request: Infer) -> Accepted:
        """As `validate`. Raises Rejected."""
        if request.is_raw or self.reshapes_inputs:
            return validate(self._signature, request)
        key = (request.outputs, *[ref[:_PLACE] for ref in request.inputs])
        batch = self._known.get(key)
        if batch is not None:
            return Accepted(request.inputs, batch)
        accepted = validate(self._signature, request)
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[key] = accepted.batch
        return accepted


def restore_shape(signature: Signature, ref: TensorRef) -> TensorRef:
    """An output as the client sees it: the inverse of the output's `reshape`, if it is what that declares."""
    for spec in signature.outputs:
        if spec.name == ref.name and spec.reshape is not None and spec.dims is not None:
            lead = 1 if signature.max_batch_size else 0
            if len(ref.shape) == lead + len(spec.reshape):
                return ref._replace(shape=ref.shape[:lead] + _fill(spec.dims, spec.reshape, ref.shape[lead:]))
    return ref


def _check_outputs(signature: Signature, names: Sequence[str]) -> None:
    known = {spec.name for spec in signature.outputs}
    for name in names:
        if known and name not in known:
            raise Rejected(f"unexpected inference output '{name}' for model '{signature.model}'")
    twice = _first_duplicate(names)
    if twice is not None:
        raise Rejected(f"output '{twice}' already exists in request")


def _check_inputs(signature: Signature, given: list[str], tag: str) -> None:
    known = [spec.name for spec in signature.inputs]
    required = [spec.name for spec in signature.inputs if not spec.optional]
    missing = [name for name in required if name not in given]
    twice = _first_duplicate(given)
    if twice is not None:
        raise Rejected(f"{tag}input '{twice}' already exists in request")
    if len(required) <= len(given) <= len(known):
        for name in given:
            if name not in known:
                raise Rejected(f"unexpected inference input '{name}' for model '{signature.model}'")
        if not missing:
            return
    wanted = (
        f"expected {len(known)} inputs"
        if len(required) == len(known)
        else f"expected number of inputs between {len(required)} and {len(known)}"
    )
    raise Rejected(
        f"{tag}{wanted} but got {len(given)} inputs for model '{signature.model}'. Got input(s) "
        f"[{_quoted(given)}], but missing required input(s) {'[' if missing else ''}{_quoted(missing)}]. "
        "Please provide all required input(s)."
    )


def _first_duplicate(names: Sequence[str]) -> str | None:
    if len(set(names)) == len(names):
        return None
    return next(name for name, times in Counter(names).items() if times > 1)


def _quoted(names: Sequence[str]) -> str:
    return ",".join(f"'{name}'" for name in sorted(names))


def _batch(signature: Signature, inputs: Sequence[TensorRef], tag: str) -> int:
    if not signature.max_batch_size:
        return 1
    batch = None
    for ref in inputs:
        if not ref.shape:
            raise Rejected(
                f"{tag}input '{ref.name}' has no shape but model requires batch dimension for '{signature.model}'"
            )
        if batch is not None and ref.shape[0] != batch:
            raise Rejected(f"{tag}input '{ref.name}' batch size does not match other inputs for '{signature.model}'")
        batch = ref.shape[0]
    if batch is not None and batch > signature.max_batch_size:
        raise Rejected(
            f"{tag}inference request batch-size must be <= {signature.max_batch_size} for '{signature.model}'"
        )
    return 1 if batch is None else batch


def _check_tensor(signature: Signature, spec: TensorSpec, ref: TensorRef, tag: str) -> None:
    model = signature.model
    given = ref.datatype if ref.datatype in DATATYPES else "<invalid>"
    if given == "<invalid>" or (spec.datatype and given != spec.datatype):
        raise Rejected(
            f"{tag}inference input '{ref.name}' data-type is '{given}', but model '{model}' expects "
            f"'{spec.datatype or 'any datatype of the protocol'}'"
        )
    if any(dim < 0 for dim in ref.shape):
        raise Rejected(
            f"{tag}All input dimensions should be specified for input '{ref.name}' for model '{model}', "
            f"got {_shape(ref.shape)}"
        )
    if spec.dims is not None:
        wanted = (-1, *spec.dims) if signature.max_batch_size else spec.dims
        if len(wanted) != len(ref.shape) or any(w not in (-1, g) for w, g in zip(wanted, ref.shape, strict=True)):
            note = _BATCH_NOTE if signature.max_batch_size else ""
            raise Rejected(
                f"{tag}unexpected shape for input '{ref.name}' for model '{model}'. Expected {_shape(wanted)}, "
                f"got {_shape(ref.shape)}. {note}"
            )
    expected = expected_byte_size(ref.datatype, ref.shape)
    if signature.max_batch_size and ref.shape[0] == 0:
        per_item = expected_byte_size(ref.datatype, ref.shape[1:])
        raise Rejected(
            f"{tag}input byte size mismatch for input '{ref.name}' for model '{model}'. Expected {per_item or 4}, got 0"
        )
    if expected is not None and expected != ref.byte_size:
        raise Rejected(
            f"{tag}input byte size mismatch for input '{ref.name}' for model '{model}'. "
            f"Expected {expected}, got {ref.byte_size}"
        )


def _reshaped(signature: Signature, spec: TensorSpec, ref: TensorRef) -> TensorRef:
    if spec.reshape is None or spec.dims is None:
        return ref
    lead = 1 if signature.max_batch_size else 0
    return ref._replace(shape=ref.shape[:lead] + _fill(spec.reshape, spec.dims, ref.shape[lead:]))


def _fill(target: Sequence[int], source: Sequence[int], actual: Sequence[int]) -> tuple[int, ...]:
    """`target` with its -1 replaced, in order, by what `actual` has where `source` has -1."""
    values = iter([size for dim, size in zip(source, actual, strict=True) if dim == -1])
    return tuple(next(values) if dim == -1 else dim for dim in target)


def _deduce(signature: Signature, raw: TensorRef, tag: str) -> TensorRef:
    """Describe the single input of a raw binary request from the model and the number of bytes.

    The frontend left 4 bytes before the data that hold its length, for a BYTES element.
    """
    model = signature.model
    if len(signature.inputs) != 1:
        raise Rejected(
            f"{tag}Raw request must only have 1 input (found 1) to be deduced but got {len(signature.inputs)} inputs "
            f"in '{model}' model configuration"
        )
    spec = signature.inputs[0]
    if spec.dims is None or not spec.datatype:
        raise Rejected(
            f"{tag}The shape of the raw input '{spec.name}' can not be deduced: model '{model}' declares none"
        )
    batch = (1,) if signature.max_batch_size else ()
    if spec.datatype == "BYTES":
        if (*batch, *spec.dims) not in {(1,), (1, 1)}:
            raise Rejected(f"{tag}For BYTE datatype raw input '{spec.name}', the model must have input shape [1]")
        return raw._replace(
            name=spec.name,
            datatype="BYTES",
            shape=(*batch, *spec.dims),
            byte_size=raw.byte_size + 4,
            offset=max(raw.offset - 4, 0),
        )
    if spec.dims.count(-1) > 1:
        raise Rejected(
            f"{tag}The shape of the raw input '{spec.name}' can not be deduced because there are more than one "
            "variable-sized dimension"
        )
    known = ELEMENT_SIZE[spec.datatype]
    for dim in spec.dims:
        known *= dim if dim != -1 else 1
    rest = raw.byte_size // known if known else 0
    return raw._replace(
        name=spec.name,
        datatype=spec.datatype,
        shape=(*batch, *(rest if dim == -1 else dim for dim in spec.dims)),
        data=None if raw.data is None else raw.data[4:],
    )


def _shape(dims: Sequence[int]) -> str:
    return "[" + ",".join(str(dim) for dim in dims) + "]"

"""The inputs that tell a model about the sequence of each request. Pure."""

import struct

from broker.messages import ErrorCode, Infer
from broker.validation import Rejected
from configs.sequences import Control, SequenceBatching
from shm.datatypes import ELEMENT_SIZE
from shm.ref import TensorRef

START = 1
END = 2
"""Bits of `Infer.flags`."""
_FORMATS = {"INT32": "<i", "FP32": "<f", "BOOL": "<?"}


class Controls:
    """Makes the control inputs of a model; all have one element, in the message itself."""

    def __init__(self, settings: SequenceBatching, max_batch_size: int) -> None:
        """Models that batch see a batch dimension in front."""
        self._controls = settings.controls
        self._shape = (1, 1) if max_batch_size else (1,)
        self._pairs = {
            c.name: (self._value(c, c.false), self._value(c, c.true)) for c in self._controls if not _is_id(c)
        }

    def __len__(self) -> int:
        """How many inputs there are for each request."""
        return len(self._controls)

    def of(self, infer: Infer) -> tuple[TensorRef, ...]:
        """Those of a request. Raises Rejected for an id that the model cannot take."""
        given = {"START": infer.flags & START, "END": infer.flags & END, "READY": True}
        return tuple(
            self._id(control, infer) if _is_id(control) else self._pairs[control.name][bool(given[control.kind])]
            for control in self._controls
        )

    def of_nobody(self) -> tuple[TensorRef, ...]:
        """Those of a slot that has no request in a batch."""
        return tuple(
            self._tensor(control, _packed_id(control.datatype, "" if control.datatype == "BYTES" else 0))
            if _is_id(control)
            else self._pairs[control.name][False]
            for control in self._controls
        )

    def _id(self, control: Control, infer: Infer) -> TensorRef:
        identity = infer.correlation_id
        if isinstance(identity, str) and control.datatype != "BYTES":
            raise Rejected(
                f"sequence batching control '{control.name}' data-type is 'BYTES', but model '{infer.model}' expects "
                f"'{control.datatype}'",
                ErrorCode.INVALID_ARG,
            )
        return self._tensor(control, _packed_id(control.datatype, identity))

    def _value(self, control: Control, value: float) -> TensorRef:
        return self._tensor(control, struct.pack(_FORMATS[control.datatype], value))

    def _tensor(self, control: Control, data: bytes) -> TensorRef:
        return TensorRef(control.name, control.datatype, self._shape, len(data), data)


def _is_id(control: Control) -> bool:
    return control.kind == "CORRID"


def _packed_id(datatype: str, identity: int | str) -> bytes:
    """The binary form: of numbers as many low bits as the datatype has, strings with their length in front."""
    if datatype == "BYTES":
        text = str(identity).encode()
        return struct.pack("<I", len(text)) + text
    size = ELEMENT_SIZE[datatype]
    return (int(identity) & ((1 << 8 * size) - 1)).to_bytes(size, "little")

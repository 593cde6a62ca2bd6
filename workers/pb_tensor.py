"""`Tensor` of `triton_python_backend_utils`."""

from typing import Any

import numpy as np

from shm.arena import INLINE
from shm.ref import TensorRef
from shm.tensor import as_array, binary_form, datatype_of
from workers import dlpack
from workers.client_memory import MARK
from workers.inputs import Inputs
from workers.outcome import Output
from workers.pb_errors import TritonModelException, check_text

CODES = {
    "BOOL": 1,
    "UINT8": 2,
    "UINT16": 3,
    "UINT32": 4,
    "UINT64": 5,
    "INT8": 6,
    "INT16": 7,
    "INT32": 8,
    "INT64": 9,
    "FP16": 10,
    "FP32": 11,
    "FP64": 12,
    "BYTES": 13,
    "BF16": 14,
}
"""Triton's numbers of the datatypes."""


class Tensor:
    """A named tensor: an output in numpy's memory, or an input in the server's."""

    __slots__ = ("_array", "_datatype", "_inputs", "_name", "_ref")
    _name: str
    _datatype: str
    _array: np.ndarray[Any, Any] | None
    _ref: TensorRef
    _inputs: Inputs

    def __init__(self, name: str, numpy_array: np.ndarray[Any, Any]) -> None:
        """Raises TypeError, and TritonModelException for what the protocol cannot carry."""
        if not isinstance(numpy_array, np.ndarray):
            raise TypeError(f"tensor '{name}' must be made of a numpy.ndarray, not of a {type(numpy_array).__name__}")
        datatype = datatype_of(numpy_array.dtype)
        if datatype is None:
            raise TritonModelException("NumPy dtype is not supported.")
        self._set(name, datatype, numpy_array)

    def _set(self, name: str, datatype: str, array: np.ndarray[Any, Any] | None) -> None:
        if name == "":
            raise TritonModelException("Tensor name cannot be an empty string.")
        check_text(name)
        self._name = name
        self._datatype = datatype
        self._array = array

    @classmethod
    def received(cls, ref: TensorRef, inputs: Inputs) -> "Tensor":
        """An input. What may turn out to be unreadable is read now: strings, client memory. Raises BackendError."""
        tensor = cls.__new__(cls)
        tensor._name = ref.name
        tensor._datatype = ref.datatype
        tensor._ref = ref
        tensor._inputs = inputs
        if ref.datatype == "BYTES" or ref.region[:1] == MARK:
            tensor._array = inputs.private(ref)
        else:
            tensor._array = None
        return tensor

    @classmethod
    def over(cls, name: str, datatype: str, shape: tuple[int, ...], data: np.ndarray[Any, Any]) -> "Tensor":
        """An output of another model, over its bytes."""
        tensor = cls.__new__(cls)
        tensor._name = name
        tensor._datatype = datatype
        tensor._array = as_array(datatype, shape, data.data)
        return tensor

    @classmethod
    def from_dlpack(cls, name: str, tensor: object) -> "Tensor":
        """A tensor in the memory of any object, or capsule, of the DLPack protocol."""
        made = cls.__new__(cls)
        try:
            made._set(name, *dlpack.import_tensor(tensor))
        except dlpack.DLPackError as error:
            raise TritonModelException(str(error)) from None
        return made

    def name(self) -> str:
        """The tensor's name."""
        return self._name

    def shape(self) -> list[int]:
        """Its shape, with the batch dimension."""
        return list(self._ref.shape if self._array is None else self._array.shape)

    def triton_dtype(self) -> int:
        """The number of its datatype."""
        return CODES[self._datatype]

    def is_cpu(self) -> bool:
        """True: tensors are in the processor's memory."""
        return True

    def as_numpy(self) -> np.ndarray[Any, Any]:
        """The array; an input's may be written to, which nobody else sees."""
        if self._datatype == "BF16":
            raise TritonModelException("NumPy has no BF16: use to_dlpack() or torch.from_dlpack().")
        return self._bits()

    def to_dlpack(self) -> object:
        """A DLPack capsule over the tensor's memory."""
        return self.__dlpack__()

    def __dlpack__(self, stream: object = None) -> object:
        """The DLPack protocol; `stream` has no meaning in the processor's memory."""
        try:
            return dlpack.export_tensor(self._datatype, self._bits())
        except dlpack.DLPackError as error:
            raise TritonModelException(str(error)) from None

    def __dlpack_device__(self) -> tuple[int, int]:
        """The DLPack protocol's number of the processor."""
        return dlpack.CPU

    def output(self) -> Output:
        """What the worker sends of it."""
        array = self._bits()
        if self._datatype != "BYTES" and array.nbytes <= INLINE:
            return Output(self._name, self._datatype, array.shape, array.tobytes())
        return Output(self._name, self._datatype, array.shape, binary_form(self._datatype, array))

    def _bits(self) -> np.ndarray[Any, Any]:
        """The array, BF16 as the bits of its elements."""
        if self._array is None:
            self._array = self._inputs.private(self._ref)
        return self._array

"""Runs of an ONNX Runtime session: numpy arrays in and out, and outputs that are written where they are to lie."""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from broker.messages import ErrorCode, Item
from shm.datatypes import ELEMENT_SIZE
from shm.tensor import NUMPY
from workers.backend import Room
from workers.backends.onnx_graph import GraphTensor
from workers.backends.onnx_session import describe
from workers.backends.onnx_shapes import byte_size, predict, recipes
from workers.batching import Array
from workers.errors import BackendError

_BFLOAT16 = 16
"""ONNX's number of the type that numpy lacks; such tensors go in and out as bits."""
IN_PLACE = 128 << 10
"""From so many bytes on, a copy costs more than binding a session to its outputs."""


class Runs:
    """One session and the outputs that are wanted of it."""

    def __init__(
        self, session: Any, options: Any, inputs: Mapping[str, GraphTensor], outputs: Sequence[GraphTensor], room: Room
    ) -> None:
        """`options` are those of runs; `room` gives memory for outputs."""
        self._session = session
        self._options = options
        self._names = [tensor.name for tensor in outputs]
        self._bits = {name for name, tensor in inputs.items() if tensor.datatype == "BF16"}
        self._has_bits = any(tensor.datatype == "BF16" for tensor in (*inputs.values(), *outputs))
        self._room = room
        self._datatypes = {tensor.name: tensor.datatype for tensor in outputs}
        self._recipes = {
            name: recipe
            for name, recipe in recipes(_dims(session.get_inputs()), _dims(session.get_outputs())).items()
            if self._datatypes.get(name) in ELEMENT_SIZE
        }

    @property
    def has_known_shapes(self) -> bool:
        """Some outputs could be written in place."""
        return bool(self._recipes)

    def forget_shapes(self) -> None:
        """Write nothing in place."""
        self._recipes.clear()

    def run(self, arrays: Mapping[str, Array]) -> list[Any]:
        """The outputs. Raises BackendError."""
        try:
            if not self._has_bits:
                found: list[Any] = self._session.run(self._names, arrays, self._options)
                return found
            values = {name: self._value(name, array) for name, array in arrays.items()}
            return [_array(value) for value in self._session.run_with_ort_values(self._names, values, self._options)]
        except Exception as error:  # code that we did not write
            raise BackendError(ErrorCode.INTERNAL, describe(error)) from error

    def run_for(self, item: Item, arrays: Mapping[str, Array]) -> list[Any]:
        """As `run`, for one request; large outputs are written where the request's reader will find them."""
        rooms = self._rooms(item, arrays)
        if not rooms:
            return self.run(arrays)
        try:
            return self._run_into(rooms, arrays)
        except Exception:  # the plain run says what is wrong
            results = self.run(arrays)
        self.forget_shapes()  # nothing is: the graph's names of dimensions are
        return results

    def _rooms(self, item: Item, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Arrays to be filled, by the output's name."""
        shapes = {name: array.shape for name, array in arrays.items()}
        rooms = {}
        for name, recipe in self._recipes.items():
            shape, datatype = predict(recipe, shapes), self._datatypes[name]
            size = 0 if shape is None else byte_size(shape, ELEMENT_SIZE[datatype])
            room = self._room(item, name, size) if size >= IN_PLACE else None
            if shape is not None and room is not None:
                rooms[name] = np.frombuffer(room, NUMPY[datatype]).reshape(shape)
        return rooms

    def _run_into(self, rooms: Mapping[str, Array], arrays: Mapping[str, Array]) -> list[Any]:
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, self._value(name, array))
        for name in self._names:
            if name in rooms:
                room = rooms[name]
                element = _BFLOAT16 if self._datatypes[name] == "BF16" else room.dtype
                binding.bind_output(name, "cpu", 0, element, room.shape, room.ctypes.data)
            else:
                binding.bind_output(name)
        self._session.run_with_iobinding(binding, self._options)
        values = zip(self._names, binding.get_outputs(), strict=True)
        return [rooms[name] if name in rooms else _array(value) for name, value in values]

    def _value(self, name: str, array: Array) -> Any:
        """An array as a value that has its ONNX type, in the same memory."""
        if name in self._bits:
            return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), _BFLOAT16)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _dims(arguments: Sequence[Any]) -> dict[str, Sequence[int | str | None]]:
    return {argument.name: argument.shape for argument in arguments}


def _array(value: Any) -> Any:
    """A value as an array in the same memory."""
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    shape = value.shape()
    size = int(np.prod(shape))
    if not size:
        return np.zeros(shape, np.uint16)
    bits: Any = (ctypes.c_uint16 * size).from_address(value.data_ptr())
    bits.owner = value  # which keeps the memory
    return np.frombuffer(bits, np.uint16).reshape(shape)

"""The OpenVINO backend: `model.xml` with `model.bin`, or by `default_model_filename` another file that it reads."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import openvino

from broker.messages import ErrorCode, Item
from shm import copies
from shm.ref import TensorRef
from shm.tensor import NUMPY
from workers.backend import Execution, Host, Interface
from workers.backends import openvino_options
from workers.backends.signature import Tensor, complete, flat, refuse, travelling, with_batching
from workers.batching import Array, Computed, execute_apart, execute_together
from workers.errors import BackendError
from workers.layout import joiner
from workers.model import ModelSpec, TensorSpec
from workers.outcome import Outcome

_DATATYPES = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "bf16": "BF16",
    "f32": "FP32",
}
"""V2 datatypes by OpenVINO's names. As in Triton f64 and strings are missing: the former would be computed as f32."""


class OpenVinoBackend:
    """One compiled model and one infer request of it."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing is loaded yet."""
        self._model = model
        self._inputs = host.inputs
        self._log = host.log
        self._request: Any = None
        self._fed: dict[str, tuple[int, Tensor]] = {}  # inputs by name, with their place
        self._flat: frozenset[str] = frozenset()
        self._given: list[tuple[int, Tensor]] = []  # the outputs that there is a use for
        self._declared = {spec.name: spec.dims for spec in model.all_outputs}
        self._fixed_batch = 0  # the batch size that the model insists on
        self._pads = False
        self._joiner = joiner(model)

    # ------------------------------------------------------------------------------------------- load

    def load(self) -> Interface:
        """Read the model, give it the configuration's shapes, compile it."""
        model = self._model
        if model.kind != "CPU":
            raise refuse(
                f"Triton OpenVINO backend supports only Kind CPU and AUTO, instance '{model.instance}' has "
                f"KIND_{model.kind}"
            )
        options = openvino_options.read(model)
        path = model.file("model.xml")
        core = openvino.Core()
        try:
            if options.extension:
                core.add_extension(options.extension)
            network = core.read_model(str(path))
        except Exception as error:  # whatever a broken file makes of the reader
            raise _failed(f"failed to load '{path}'", error) from error
        self._model, found = with_batching(model, all(map(_has_batch_layout, network.inputs)))
        try:
            self._reshape(network, options)
        except Exception as error:
            raise _failed(
                f"failed to give '{path}' the shapes of the configuration (max_batch_size "
                f"{self._model.max_batch_size}; SKIP_OV_DYNAMIC_BATCHSIZE leaves the model's own batch size)",
                error,
            ) from error
        interface = self._bind(network, options, found)
        try:
            compiled = core.compile_model(network, options.device, self._supported(core, options))
            self._request = compiled.create_infer_request()
        except Exception as error:
            raise _failed(f"failed to compile '{path}' for {options.device}", error) from error
        return interface

    def unload(self) -> None:
        """The process ends, and with it everything."""

    def _supported(self, core: Any, options: openvino_options.Options) -> dict[str, Any]:
        """The properties that the device has."""
        known = set(core.get_property(options.device, "SUPPORTED_PROPERTIES"))
        for key in options.properties.keys() - known:
            self._log("W", f"{key} has no effect: OpenVINO's device {options.device} does not have it")
        return {key: value for key, value in options.properties.items() if key in known}

    def _reshape(self, network: Any, options: openvino_options.Options) -> None:
        """The shapes that the configuration asks for: a batch of any size up to its largest, and its dims."""
        model = self._model
        specs = {spec.name: spec for spec in model.fed}
        shapes = {}
        for port in network.inputs:
            shape = port.partial_shape
            if options.is_reshaped:
                spec = next((specs[name] for name in port.names if name in specs), None)
                shape = shape if spec is None else openvino.PartialShape([*_lead(model, options), *spec.dims])
            elif model.max_batch_size and not options.keeps_batch and shape.rank.is_static and len(shape):
                shape[0] = openvino.Dimension(1, model.max_batch_size) if shape[0].is_static else shape[0]
            shapes[port] = shape
        if any(shape != port.partial_shape for port, shape in shapes.items()):
            network.reshape(shapes)

    def _bind(self, network: Any, options: openvino_options.Options, found: dict[str, Any]) -> Interface:
        """Names of inputs and outputs, as the configuration or else the model calls them. Raises BackendError."""
        model = self._model
        inputs = [_tensor(port, model.fed) for port in network.inputs]
        outputs = [_tensor(port, model.all_outputs) for port in network.outputs]
        if model.max_batch_size and options.keeps_batch:
            self._fixed_batch = next((tensor.dims[0] for tensor in inputs if tensor.dims and tensor.dims[0] > 0), 0)
            self._pads = options.pads_batch
            if self._fixed_batch and model.max_batch_size > self._fixed_batch:
                raise refuse(
                    f"max_batch_size of model '{model.name}' is {model.max_batch_size}, but the model's own batch "
                    f"size, which SKIP_OV_DYNAMIC_BATCHSIZE leaves, is {self._fixed_batch}"
                )
            inputs, outputs = [[_batched(tensor, self._fixed_batch) for tensor in side] for side in (inputs, outputs)]
        interface = complete(model, inputs, outputs, found)
        self._fed = {tensor.name: (index, tensor) for index, tensor in enumerate(inputs)}
        self._flat = flat(model, inputs)
        wanted = {spec.name for spec in model.all_outputs} | {io.name for io in interface.outputs}
        self._given = [(index, tensor) for index, tensor in enumerate(outputs) if tensor.name in wanted]
        return interface

    # ------------------------------------------------------------------------------------------- execute

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Run the model once for all requests, or once for each when it has no batch dimension."""
        if self._model.max_batch_size:
            return execute_together(requests, self._read, self._run, execution, self._joiner)
        # OpenVINO writes the outputs of every run to the same place.
        run = self._run if len(requests) == 1 else partial(self._run, is_copied=True)
        return execute_apart(requests, self._read, run, execution, self._joiner)

    def _read(self, ref: TensorRef) -> Array:
        array = self._inputs.array(ref)
        return array.reshape(-1) if ref.name in self._flat else array

    def _run(self, arrays: dict[str, Array], is_copied: bool = False) -> list[Computed]:
        size = len(next(iter(arrays.values()))) if self._fixed_batch else 0
        if size < self._fixed_batch:
            arrays = {name: self._padded(array) for name, array in arrays.items()}
        try:
            tensors = {self._fed[name][0]: self._lent(name, array) for name, array in arrays.items()}
            self._request.infer(tensors)
        except Exception as error:  # code that we did not write
            raise _failed("OpenVINO failed to execute", error) from error
        results = [(tensor, self._request.get_output_tensor(index).data) for index, tensor in self._given]
        computed = []
        for tensor, result in results:
            array = result.view(NUMPY[tensor.datatype])
            if is_copied or any(np.may_share_memory(array, given) for given in arrays.values()):
                copies.count("kept", array.nbytes)
                array = array.copy()  # an input that is an output, too, is where it was; it may go before the answer
            array = array[:size] if size < self._fixed_batch else array
            array = travelling(array, self._declared.get(tensor.name), bool(self._model.max_batch_size))
            computed.append(Computed(tensor.name, tensor.datatype, array))
        return computed

    def _lent(self, name: str, array: Array) -> Any:
        """An input for OpenVINO where it lies; it takes no array that says it is read-only, though it only reads."""
        datatype = self._fed[name][1].datatype
        array = np.ascontiguousarray(array)
        if not array.flags.writeable:
            try:
                array = array.view()
                array.flags.writeable = True
            except ValueError:  # it lies in the message
                copies.count("read-only", array.nbytes)
                array = array.copy()
        if datatype == "BF16":
            return openvino.Tensor(array, array.shape, openvino.Type.bf16)
        return openvino.Tensor(array, shared_memory=True)

    def _padded(self, array: Array) -> Array:
        """A batch filled up with zeros. Raises BackendError."""
        missing = self._fixed_batch - len(array)
        if not self._pads:
            raise refuse(
                f"expected requests with batch size '{self._fixed_batch}', got '{len(array)}': set the parameter "
                "ENABLE_BATCH_PADDING to YES, or leave out SKIP_OV_DYNAMIC_BATCHSIZE"
            )
        return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def _lead(model: ModelSpec, options: openvino_options.Options) -> list[Any]:
    """The batch dimension of a model whose dims are the configuration's."""
    if not model.max_batch_size:
        return []
    return [model.max_batch_size if options.keeps_batch else openvino.Dimension(1, model.max_batch_size)]


def _tensor(port: Any, specs: Sequence[TensorSpec]) -> Tensor:
    """An input or output, under the one of its names that the configuration uses."""
    names = sorted(port.names) or [port.node.friendly_name]
    declared = {spec.name for spec in specs}
    name = next((name for name in names if name in declared), names[0])
    shape = port.partial_shape
    dims = tuple(dim.get_length() if dim.is_static else -1 for dim in shape) if shape.rank.is_static else None
    type_name = port.element_type.get_type_name()
    return Tensor(name, _DATATYPES.get(type_name, ""), type_name, dims)


def _batched(tensor: Tensor, size: int) -> Tensor:
    """With a batch dimension of any size in place of the model's own."""
    is_fixed = tensor.dims is not None and tensor.dims[:1] == (size,)
    return tensor._replace(dims=(-1, *tensor.dims[1:])) if is_fixed and tensor.dims else tensor


def _has_batch_layout(port: Any) -> bool:
    """The model itself says that the first dimension is the batch."""
    layout = openvino.layout_helpers.get_layout(port)
    has_batch: bool = openvino.layout_helpers.has_batch(layout) and openvino.layout_helpers.batch_idx(layout) == 0
    return has_batch


def _failed(what: str, error: Exception) -> BackendError:
    """An error of OpenVINO's without the places in its source."""
    if isinstance(error, BackendError):
        return error
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return BackendError(ErrorCode.INTERNAL, f"{what}: {' '.join(told) or str(error).strip()}")

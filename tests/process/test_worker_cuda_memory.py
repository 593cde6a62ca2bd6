"""A worker and device memory that a client has registered; needs a GPU and cupy."""

from pathlib import Path

import numpy as np
import pytest

from broker.messages import ClientRegion, ClientRegionGone, ErrorCode, Target
from shm.ref import TensorRef
from tests.support.worker import FakeBroker, tensor

pytestmark = pytest.mark.gpu

COUNT = 5000
FLOATS = {
    "max_batch_size": 8,
    "input": [tensor("IN", "TYPE_FP32", -1)],
    "output": [tensor("OUT", "TYPE_FP32", -1)],
}


def test_in_and_out(tmp_path: Path) -> None:
    cupy = pytest.importorskip("cupy")
    memory = cupy.arange(2 * COUNT, dtype=cupy.float32)
    memory[COUNT:] = 0
    cupy.cuda.runtime.deviceSynchronize()
    handle = cupy.cuda.runtime.ipcGetMemHandle(memory.data.ptr)
    region = ClientRegion(1, "cuda", "", 0, memory.nbytes, 0, handle)
    order = TensorRef("IN", "FP32", (1, COUNT), 4 * COUNT, None, "@1", 0)
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, FLOATS, kind="KIND_GPU")
        broker.send(region)
        result = broker.infer(order, targets=(Target("OUT", "@1", 4 * COUNT, 4 * COUNT),))
        assert result.code == ErrorCode.OK, result.error
        np.testing.assert_array_equal(memory[COUNT:].get(), np.arange(COUNT, dtype=np.float32))
        broker.send(ClientRegionGone(1))
        assert broker.infer(order).code == ErrorCode.UNAVAILABLE
        assert broker.stop() == 0

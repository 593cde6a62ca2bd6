"""A worker process on the real fabric, driven by a fake broker: loading, executing, shared memory, stopping."""

import os
from pathlib import Path

import numpy as np
import pytest

from broker.messages import ErrorCode, Executed, Execute, LoadFailed, PeerGone, RegionOpened
from tests.process.fake_broker import READER, FakeBroker, item, tensor

IDENTITY = {
    "max_batch_size": 8,
    "input": [tensor("INPUT0", "TYPE_FP32", -1), tensor("TEXT", "TYPE_STRING", -1)],
    "output": [tensor("OUTPUT0", "TYPE_FP32", -1), tensor("TEXT_OUT", "TYPE_STRING", -1)],
}


def test_identity_small_and_large(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, IDENTITY)
        small = np.arange(16, dtype=np.float32).reshape(1, 16)
        text = np.array([[b"a", b"\0\xff"]], dtype=np.object_)
        out = broker.arrays(broker.infer(broker.ref("INPUT0", small), broker.ref("TEXT", text)))
        np.testing.assert_array_equal(out["OUTPUT0"], small)
        np.testing.assert_array_equal(out["TEXT_OUT"], text)
        large = np.random.default_rng(0).random((4, 1 << 20), dtype=np.float32)
        out = broker.arrays(broker.infer(broker.ref("INPUT0", large)))
        np.testing.assert_array_equal(out["OUTPUT0"], large)

"""What frontends are told for classifying outputs."""

import pytest

from broker import answers
from broker.messages import ErrorCode
from broker.models import Model, Version, VersionState
from broker.validation import Rejected
from configs.description import TensorSpec
from tests.unit.broker.describe import description

OUTPUTS = (TensorSpec("OUT", "FP32", (2,), labels=("cat", "dog")), TensorSpec("MORE", "FP32", (2,)))


def served(max_batch_size: int) -> dict[str, Model]:
    model = Model("m")
    version = Version.create(description(outputs=OUTPUTS, max_batch_size=max_batch_size), 3)
    version.state = VersionState.READY
    model.versions[3] = version
    return {"m": model}


@pytest.mark.parametrize(("max_batch_size", "is_batched"), [(0, False), (8, True)])
def test_labels_of_a_version(max_batch_size: int, is_batched: bool) -> None:
    expected = {"is_batched": is_batched, "labels": {"OUT": ("cat", "dog")}}
    assert answers.labels(served(max_batch_size), "m", 3) == expected


def test_labels_of_what_is_not_there() -> None:
    for name, version in (("m", 2), ("n", -1)):
        with pytest.raises(Rejected, match="Request for unknown model") as caught:
            answers.labels(served(0), name, version)
        assert caught.value.code == ErrorCode.NOT_FOUND

"""How many threads an execution in this worker is to use."""

import os

from broker.child import THREADS


def intra_op_threads(instances: int = 1) -> int:
    """What the broker says; without a broker the cores that we may use, over the model's instances."""
    told = os.environ.get(THREADS, "")
    return int(told) if told.isdecimal() else max(1, len(os.sched_getaffinity(0)) // max(1, instances))

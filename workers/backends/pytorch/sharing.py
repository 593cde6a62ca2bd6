"""Instances that share the pages of a model file's weights, though its loader has copied them."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch

from workers.backends.pytorch import archive

LEAST = 64 << 10
"""Below this many bytes a tensor stays as it is: pages would be shared with whatever lies beside it."""


def share(tensors: Iterable[torch.Tensor], path: Path) -> int:
    """Let tensors lie in a mapping of the file they came from, where its bytes are theirs; how many bytes do.

    The tensor's content says which part of the file it is, so it need not be known how a format orders them. The
    mapping is private: a model that writes to a weight gets pages of its own.
    """
    by_size = defaultdict(list)
    for record in archive.records(path):
        by_size[record.byte_size].append(record.offset)
    storage = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)
    content = torch.empty(0, dtype=torch.uint8).set_(storage)
    shared = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if size < LEAST or not tensor.is_contiguous() or tensor.device.type != "cpu":
            continue
        values = tensor.detach().view(-1).view(torch.uint8)
        for offset in by_size[size]:
            candidate = content[offset : offset + size]
            if offset % tensor.element_size() == 0 and torch.equal(candidate, values):
                tensor.data = candidate.view(tensor.dtype).view(tensor.shape)
                shared += size
                break
    return shared

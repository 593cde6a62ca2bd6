"""Tensors and the shared memory they travel in: a leaf that knows tensors, not requests."""

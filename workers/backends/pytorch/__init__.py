"""The PyTorch backend: TorchScript, exported and compiled programs, and classes with their weights."""

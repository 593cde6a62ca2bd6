"""Cannot be loaded."""


class TritonPythonModel:
    """Fails while it is initialized."""

    def initialize(self, args):
        """Always fails."""
        raise RuntimeError("cannot be loaded")

    def execute(self, requests):
        """Never reached."""
        return [None for _ in requests]

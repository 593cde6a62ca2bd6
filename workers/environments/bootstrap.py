"""Run by an environment's own interpreter: the worker, with what it needs of the server's installation.

The server's site-packages stay out of the module path. Its own packages are the server's in any case; what these import
(numpy, for one) is the environment's, and the server's only where the environment has none.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _Lent(MetaPathFinder):
    """Finds packages by name, each in the directory given for it."""

    def __init__(self, directories: Mapping[str, str]) -> None:
        self._directories = directories

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        directory = self._directories.get(fullname)
        return None if directory is None or path is not None else PathFinder.find_spec(fullname, [directory], target)


def main() -> None:
    """`bootstrap.py OWN LENT MODULE ARGUMENT...`: directories by package as JSON, and the module to run."""
    own, lent = (json.loads(sys.argv.pop(1)) for _ in range(2))
    sys.meta_path.insert(0, _Lent(own))
    sys.meta_path.append(_Lent(lent))
    import_module(sys.argv.pop(1)).main()


if __name__ == "__main__":
    main()

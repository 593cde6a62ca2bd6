"""Room for the user's modules: our packages have common names, and a model may well have a `configs` of its own."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

OWN_NAMES = frozenset({"broker", "configs", "frontends", "shm", "workers"})
_OWN_DIRECTORY = Path(__file__).resolve().parent.parent


class _UserFirst(MetaPathFinder):
    """Answers imports of names like ours: from the model's directories, then from wherever the user's code is."""

    def __init__(self, directories: list[str]) -> None:
        self._directories = directories

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in OWN_NAMES:
            return None
        elsewhere = [entry for entry in sys.path if Path(entry).resolve() != _OWN_DIRECTORY]
        spec = PathFinder.find_spec(fullname, [*self._directories, *elsewhere], target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)
        return spec


class _Fresh(SourceFileLoader):
    """Compiles the source each time: Python tells what it has compiled before only by whole seconds and the size."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now."""
        return self.source_to_code(self.get_data(self.path), self.path)


def leave_names() -> None:
    """Hand our top-level names to the user: nothing of ours can be imported afterwards; what is goes on working."""
    for name in list(sys.modules):
        if name.partition(".")[0] in OWN_NAMES:
            del sys.modules[name]


def make_room(directories: list[str]) -> None:
    """Have the names that we leave mean the user's modules, and add `directories` to the module path."""
    sys.meta_path.insert(0, _UserFirst(directories))
    sys.path += directories


def import_file(path: Path, package: str) -> ModuleType:
    """Import a file as `<package>.<stem>`, its directory being that package; raises what the file raises.

    Without a package (`""`) as a module of its own.
    """
    if not package:
        return _execute(path.stem, path, None)
    directory = str(path.parent)
    init = path.parent / "__init__.py"
    if init.exists():
        _execute(package, init, [directory])
    else:
        module = ModuleType(package)
        module.__path__ = [directory]
        sys.modules[package] = module
    return _execute(f"{package}.{path.stem}", path, None)


def _execute(name: str, path: Path, search: list[str] | None) -> ModuleType:
    loader = _Fresh(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader, submodule_search_locations=search)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module

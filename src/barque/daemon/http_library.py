"""The HTTP library without its half for clients, which the daemon seldom uses: a fifth of its start and 4 MB.

Whoever names something of that half gets the whole library then.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any

_NAME = "aiohttp"


class _Package(types.ModuleType):
    """The package before its own code has run; its modules can be imported."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        # A module of the package is imported by whoever asks for it.
        if name.startswith("__") or spec is None or spec.loader is None or importlib.util.find_spec(f"{_NAME}.{name}"):
            raise AttributeError(f"module {_NAME} has no attribute {name}")
        # Once: from now on it is a package like any other.
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def import_server() -> None:
    """Import the library's half for servers."""
    spec = importlib.util.find_spec(_NAME)
    if _NAME not in sys.modules and spec is not None and spec.submodule_search_locations is not None:
        package = _Package(_NAME)
        package.__spec__, package.__path__ = spec, spec.submodule_search_locations
        package.__file__, package.__loader__, package.__package__ = spec.origin, spec.loader, _NAME
        # Of which it makes the names that it gives itself towards others, where ours stand.
        package.__version__ = "3"  # type: ignore[attr-defined]
        sys.modules[_NAME] = package
    importlib.import_module(f"{_NAME}.web")

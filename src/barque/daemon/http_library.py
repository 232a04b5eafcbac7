"""The HTTP library without its halves for clients, and for routes and files: a quarter of the daemon's start and 4 MB.

Whoever names something of those gets the whole library then.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any

_NAME = "aiohttp"
_WEB = f"{_NAME}.web"
_PARTS = ("web_exceptions", "web_protocol", "web_request", "web_response", "web_server")
"""What of `aiohttp.web` answers requests."""


class _Unrun(types.ModuleType):
    """A module before its own code has run; the modules of a package can be imported."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        # A module of the package is imported by whoever asks for it.
        is_module = "__path__" in vars(self) and importlib.util.find_spec(f"{self.__name__}.{name}")
        if name.startswith("__") or spec is None or spec.loader is None or is_module:
            raise AttributeError(f"module {self.__name__} has no attribute {name}")
        # Once: from now on it is a module like any other.
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _unrun(name: str) -> types.ModuleType:
    """Put a module in its place without running its code.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    module.__class__ = _Unrun
    return module


def import_server() -> None:
    """Import what of the library answers requests.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if _NAME in sys.modules:
        return
    package = _unrun(_NAME)
    # Of which it makes the names that it gives itself towards others, where ours stand.
    package.__version__ = "3"  # type: ignore[attr-defined]
    web = package.web = _unrun(_WEB)  # type: ignore[attr-defined]
    for part in _PARTS:
        module = importlib.import_module(f"{_NAME}.{part}")
        vars(web).update({name: vars(module)[name] for name in module.__all__})

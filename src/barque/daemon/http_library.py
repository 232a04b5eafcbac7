"""The HTTP library without its halves for clients, and for routes and files: a quarter of the daemon's start and 4 MB.

Whoever names something of those gets the whole library then (`later`).
"""

import importlib
import sys

from barque.daemon import later

_NAME = "aiohttp"
_WEB = f"{_NAME}.web"
_PARTS = ("web_exceptions", "web_protocol", "web_request", "web_response", "web_server")
"""What of `aiohttp.web` answers requests."""


def import_server() -> None:
    """Import what of the library answers requests, where the rest is put off.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if _NAME in sys.modules:
        return
    package = importlib.import_module(_NAME)
    if _NAME not in later.waiting():
        return
    # Of which it makes the names that it gives itself towards others, where ours stand.
    package.__version__ = "3"  # type: ignore[attr-defined]
    web = importlib.import_module(_WEB)
    for part in _PARTS:
        module = importlib.import_module(f"{_NAME}.{part}")
        vars(web).update({name: vars(module)[name] for name in module.__all__})

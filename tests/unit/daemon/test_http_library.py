import subprocess
import sys


def test_the_half_for_clients_comes_when_it_is_named_and_not_before():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from barque.daemon import http_library\n"
        "http_library.import_server()\n"
        "from aiohttp import hdrs, web\n"
        "import aiohttp\n"
        "print('aiohttp.client' in sys.modules, web.Server.__name__, hdrs.ACCEPT)\n"
        "print(aiohttp.ClientSession.__name__, 'aiohttp.client' in sys.modules, aiohttp.web is web)\n"
        "print(aiohttp.__version__ == __import__('importlib.metadata').metadata.version('aiohttp'))\n"
        "try: aiohttp.no_such\n"
        "except AttributeError: print('none')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.splitlines() == ["False Server Accept", "ClientSession True True", "True", "none"]

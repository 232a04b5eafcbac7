import subprocess
import sys


def test_what_is_no_half_for_answers_comes_when_it_is_named_and_not_before():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from barque.daemon import http_library\n"
        "http_library.import_server()\n"
        "from aiohttp import hdrs, web\n"
        "import aiohttp\n"
        "print('aiohttp.client' in sys.modules, web.Server.__name__, hdrs.ACCEPT)\n"
        "server, answer = web.Server, web.Response\n"
        "print('aiohttp.web_app' in sys.modules, web.Application.__name__, 'aiohttp.web_app' in sys.modules)\n"
        "print(web.Server is server, web.Response is answer)\n"
        "print(aiohttp.ClientSession.__name__, 'aiohttp.client' in sys.modules, aiohttp.web is web)\n"
        "print(aiohttp.__version__ == __import__('importlib.metadata').metadata.version('aiohttp'))\n"
        "try: aiohttp.no_such\n"
        "except AttributeError: print('none')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.splitlines() == ["False Server Accept", "False Application True", "True True", "ClientSession True True", "True", "none"]

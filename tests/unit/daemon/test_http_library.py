import subprocess
import sys


def test_what_is_no_half_for_answers_comes_when_it_is_named_and_not_before():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from barque.daemon import http_library, later\n"
        "later.put_off()\n"
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


def test_the_daemon_starts_without_what_few_requests_need():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from barque.daemon import http_library, later\n"
        "later.put_off()\n"
        "http_library.import_server()\n"
        "import barque.daemon.service\n"
        "print(*sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    rare = {"aiohttp.client", "aiohttp.web_app", "barque.builder", "barque.dockerfile", "zstandard",
            "barque.distribution.pull", "barque.engine.live_mounts", "barque.engine.checking"}  # fmt: skip
    assert "aiohttp.web_server" in found.stdout.split() and not rare & {*found.stdout.split()}

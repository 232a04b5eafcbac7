import importlib
import pkgutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from barque.daemon import later


def _say(code: str) -> list[str]:
    """Return what a new interpreter says in which modules are put off."""
    start = f"import sys; sys.path[:0] = {sys.path!r}\nfrom barque.daemon import later\nlater.put_off()\n"
    found = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=True, timeout=60)
    return found.stdout.splitlines()


def test_nothing_that_is_put_off_runs_at_the_start() -> None:
    ran, waiting = _say(
        "from barque.daemon import main, http_library\n"
        "http_library.import_server()\n"
        "import barque.daemon.service\n"
        "put_off = later.PUT_OFF | later.STAND_INS.keys()\n"
        "print(*sorted(put_off & sys.modules.keys() - {*later.waiting()}))\n"
        "print(len(later.waiting()))\n"
    )
    assert ran == "" and int(waiting) > 80


def test_the_http_library_finds_what_it_imported_of_modules_that_had_not_run() -> None:
    assert _say(
        "from barque.daemon import http_library\n"
        "http_library.import_server()\n"
        "from aiohttp import helpers\n"
        "print('email.policy' in later.waiting(), 'urllib.request' in later.waiting())\n"
        "print(helpers.parse_content_type('text/html; charset=x'), helpers.proxy_bypass('here') in (0, False, None))\n"
        "print('email.policy' in later.waiting(), 'urllib.request' in later.waiting())\n"
        "import email.policy\n"
        "print(type(email.policy.HTTP).__name__, type(sys.modules['email.policy']).__name__)\n"
    ) == [
        "True True",
        "('text/html', mappingproxy({'charset': 'x'})) True",
        "False False",
        "EmailPolicy module",
    ]


def test_no_package_that_is_put_off_gives_a_function_the_name_of_its_own_module() -> None:
    """Such a name would be taken for the module, and the function not be found before the package has run."""
    for name in later.PUT_OFF:
        package = importlib.import_module(name)
        inner = {module.name for module in pkgutil.iter_modules(getattr(package, "__path__", ()))}
        given = {key for key, value in vars(package).items() if not isinstance(value, types.ModuleType)}
        assert not inner & given, name


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder of modules; those named slow... and bad... are put off."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    later.put_off(frozenset({"slow_one", "slow_two", "bad_one"}))
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        del sys.modules[name]


def test_threads_that_name_things_at_once_have_them_run_once_and_see_them_whole(rooms: Path) -> None:
    times = rooms / "times"
    for name, other in (("slow_one", "slow_two"), ("slow_two", "")):
        rooms.joinpath(f"{name}.py").write_text(
            f"import time\nwith open({str(times)!r}, 'a') as file: file.write('{name} ')\n"
            + (f"import {other}\nassert {other}.last == 2\n" if other else "")
            + "first = 1\ntime.sleep(0.05)  # so that all others come meanwhile\nlast = 2\n"
        )
    import slow_one  # type: ignore[import-not-found]
    import slow_two  # type: ignore[import-not-found]

    assert not times.exists()
    seen: list[int] = []
    gate = threading.Barrier(8)

    def name_something(module: object) -> None:
        gate.wait()
        seen.append(module.first + module.last)  # type: ignore[attr-defined]

    threads = [threading.Thread(target=name_something, args=(module,)) for module in (slow_one, slow_two) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [3] * 8
    assert sorted(times.read_text().split()) == ["slow_one", "slow_two"]
    with pytest.raises(AttributeError, match="no attribute 'neither'"):
        slow_one.neither  # noqa: B018 - the access is the test


def test_a_module_that_cannot_run_says_so_to_everyone_who_names_something_of_it(rooms: Path) -> None:
    rooms.joinpath("bad_one.py").write_text("import no_such_module_anywhere\nthing = 1\n")
    import bad_one  # type: ignore[import-not-found]

    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
            bad_one.thing  # noqa: B018 - the access is the test
    rooms.joinpath("no_such_module_anywhere.py").write_text("")
    assert bad_one.thing == 1

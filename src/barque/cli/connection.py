"""Which engine the command talks to, and starting one where none answers."""

from __future__ import annotations

import os
import sys

from barque.base.errors import InvalidInputError, UnavailableError
from barque.cli.flags import Options
from barque.client.api import Api
from barque.client.endpoint import DEFAULT_HOST, Endpoint, TlsFiles, connect, parse_host

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

START_SECONDS = 15


def open_api(options: Options) -> Api:
    """Return a client for the engine that the global flags and the environment name.

    An engine is started where the default one is meant and does not answer.

    Raises:
        InvalidInputError: flags contradict each other or the host string is wrong.
        UnavailableError: the engine could not be started.
    """
    hosts = options["host"]
    if len(hosts) > 1:
        raise InvalidInputError("specify only one -H")
    context = options["context"] or ("" if hosts else os.environ.get("DOCKER_CONTEXT", ""))
    if context not in ("", "default"):
        raise InvalidInputError(f'context "{context}": context not found')
    environment = os.environ.get("BARQUE_HOST") or os.environ.get("DOCKER_HOST")
    text = hosts[0] if hosts else environment
    tls = _tls(options)
    endpoint = parse_host(text or DEFAULT_HOST, tls=tls is not None)
    if not text:
        _start_if_absent(endpoint)
    return Api(endpoint, tls, os.environ.get("DOCKER_API_VERSION", ""), _trace(options))


def _trace(options: Options) -> Callable[[str], None] | None:
    """Return what tells of requests on standard error, for --debug or the level debug."""
    if not options["debug"] and options["log-level"] not in ("debug", "trace"):
        return None

    def tell(message: str) -> None:
        import time

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(f'time="{stamp}" level=debug msg="{message}"', file=sys.stderr)

    return tell


def _tls(options: Options) -> TlsFiles | None:
    verify = options["tlsverify"] or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or options["tls"] or any(options.given(n) for n in ("tlscacert", "tlscert", "tlskey"))):
        return None
    folder = os.environ.get("DOCKER_CERT_PATH") or config_folder(options)
    return TlsFiles(
        options["tlscacert"] or f"{folder}/ca.pem",
        options["tlscert"] or f"{folder}/cert.pem",
        options["tlskey"] or f"{folder}/key.pem",
        verify,
    )


def config_folder(options: Options) -> str:
    """Return the folder of the client's configuration."""
    home = os.environ.get("HOME") or "/root"
    return str(options["config"] or os.environ.get("DOCKER_CONFIG") or f"{home}/.docker")


def _start_if_absent(endpoint: Endpoint) -> None:
    try:
        connect(endpoint).close()
        return
    except UnavailableError:
        if os.geteuid() != 0:
            raise
    _start(endpoint)


def _start(endpoint: Endpoint) -> None:
    import select
    import time

    folder = os.path.dirname(endpoint.path)
    os.makedirs(folder, exist_ok=True)
    log_path = f"{folder}/barque-daemon.log"
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    log_start = os.fstat(log).st_size
    pid = _spawn(log)
    os.close(log)
    waiter = os.pidfd_open(pid)
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                connect(endpoint).close()
                return
            except UnavailableError:
                pass
            if select.select([waiter], [], [], 0.02)[0]:
                if _answers(endpoint):
                    return
                raise UnavailableError(f"the daemon did not start: {_last_words(log_path, log_start)}")
    finally:
        os.close(waiter)
    raise UnavailableError(f"the daemon does not answer at {endpoint.text} (its log: {log_path})")


def _answers(endpoint: Endpoint) -> bool:
    # Two commands may start an engine at once; the second engine ends because the first one holds the lock.
    import time

    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        try:
            connect(endpoint).close()
            return True
        except UnavailableError:
            time.sleep(0.02)
    return False


def _spawn(log: int) -> int:
    arguments = [sys.executable, "-m", "barque", "daemon"]
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH", "")]))
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    actions: list[Any] = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    try:
        return os.posix_spawn(sys.executable, arguments, environment, file_actions=actions, setsid=True)
    finally:
        os.close(null)


def _last_words(path: str, start: int) -> str:
    with open(path, "rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"

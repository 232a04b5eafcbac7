"""The sockets that the API is served on: unix, TCP with or without TLS, or given by a service manager."""

import grp
import ipaddress
import logging
import os
import socket
import ssl
import stat
from typing import NamedTuple

from barque.daemon.flags import DaemonError
from barque.daemon.options import Options

log = logging.getLogger(__name__)

DEFAULT_HOST = "unix:///run/barque.sock"
FIRST_PASSED_FD = 3
_BACKLOG = 1024


class Listener(NamedTuple):
    """A bound socket; `path` is what to unlink at the end, empty for others than our own unix sockets."""

    sock: socket.socket
    tls: ssl.SSLContext | None
    path: str
    shown: str


def open_all(options: Options) -> list[Listener]:
    """Return the sockets of all `--host` options; the caller closes them.

    Raises:
        DaemonError: one cannot be opened; those before it are closed again.
    """
    opened: list[Listener] = []
    try:
        context = tls_context(options)
        for host in options["host"] or [DEFAULT_HOST]:
            opened += _open(host, options, context)
    except BaseException:
        close_all(opened)
        raise
    return opened


def close_all(listeners: list[Listener]) -> None:
    """Close sockets and remove our unix sockets' files."""
    for listener in listeners:
        listener.sock.close()
        if listener.path:
            try:
                os.unlink(listener.path)
            except FileNotFoundError:
                pass


def _open(host: str, options: Options, context: ssl.SSLContext | None) -> list[Listener]:
    kind, separator, rest = host.partition("://")
    if not separator:
        # Docker takes a bare host:port for TCP and a bare path for a unix socket.
        kind, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    try:
        match kind:
            case "unix":
                return [_open_unix(rest or DEFAULT_HOST.partition("://")[2], options)]
            case "tcp":
                return _open_tcp(rest, options, context)
            case "fd":
                return _passed(rest)
    except OSError as error:
        raise DaemonError(f"failed to load listeners: can't create {kind} socket {rest}: {error.strerror}") from None
    raise DaemonError(f"unable to parse docker host `{host}`")


def _open_unix(path: str, options: Options) -> Listener:
    if len(os.fsencode(path)) > 107:
        raise DaemonError(f"failed to load listeners: the path of the unix socket is longer than 107 bytes: {path}")
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody else may connect before group and mode are right.
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        group = _group_id(options)
        if group is not None:
            os.chown(path, 0, group)
        os.chmod(path, 0o660)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, None, path, f"unix://{path}")


def _remove_stale(path: str) -> None:
    """Unlink a socket that nobody serves any more.

    Raises:
        DaemonError: a living process serves it, or the file is no socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise DaemonError(f"failed to load listeners: {path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise DaemonError(f"failed to load listeners: can't create unix socket {path}: another process listens on it")


def _group_id(options: Options) -> int | None:
    name = options["group"]
    if not name:
        return None
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if "group" in options.given:
            raise DaemonError(f"failed to load listeners: group {name} not found") from None
        return None


def _open_tcp(address: str, options: Options, context: ssl.SSLContext | None) -> list[Listener]:
    host, port = _split(address, 2376 if context else 2375)
    if context is None or context.verify_mode != ssl.CERT_REQUIRED:
        _check_exposed(host, port, options, encrypted=context is not None)
    listeners = []
    for family, kind, _, _, name in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    ):
        sock = socket.socket(family, kind)
        listeners.append(Listener(sock, context, "", f"tcp://{address}"))
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(name)
            sock.listen(_BACKLOG)
        except BaseException:
            close_all(listeners)
            raise
    return listeners


def _split(address: str, default_port: int) -> tuple[str, int]:
    address = address.rstrip("/")
    if "/" in address:
        raise DaemonError(f"invalid bind address (tcp://{address}): should not contain a path element")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(default_port)
    if not port.isdigit() or not 0 <= int(port) < 1 << 16:
        raise DaemonError(f"invalid bind address format: tcp://{address}")
    return host.strip("[]") or "localhost", int(port)


def _check_exposed(host: str, port: int, options: Options, *, encrypted: bool) -> None:
    """Refuse to give root to everybody who reaches a port, unless that was said aloud."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    aloud = ("tls" in options.given and not options["tls"]) or (
        "tlsverify" in options.given and not options["tlsverify"]
    )
    if not loopback and not aloud:
        raise DaemonError(
            f"refusing to serve the API on tcp://{host}:{port} without client certificates: everybody who reaches it "
            "would be root on this machine. Use --tlsverify with --tlscacert, --tlscert and --tlskey, or say "
            "--tlsverify=false to do it all the same"
        )
    log.warning(
        "binding to %s:%d %s gives root on this machine to everybody who can reach it",
        host, port, "without --tlsverify" if encrypted else "without TLS",
    )  # fmt: skip


def tls_context(options: Options) -> ssl.SSLContext | None:
    """Return how TCP sockets are encrypted, None where they are not.

    Raises:
        DaemonError: a file is missing or wrong.
    """
    verify = options["tlsverify"]
    if not (verify or options["tls"]):
        return None
    for name in ("tlscert", "tlskey", *(("tlscacert",) if verify else ())):
        if not options[name]:
            raise DaemonError(f"TLS needs --{name}")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(options["tlscert"], options["tlskey"])
        if verify:
            context.load_verify_locations(cafile=options["tlscacert"])
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise DaemonError(f"could not load X509 key pair or certificates: {error}") from None
    return context


def passed() -> int:
    """Return how many sockets a service manager passed to this process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    return int(os.environ.get("LISTEN_FDS", "0"))


def _passed(which: str) -> list[Listener]:
    """Return the sockets that a service manager passed: all, or the one with a number or a name."""
    count = passed()
    if not count:
        raise DaemonError("no sockets found via socket activation: make sure the service was started by systemd")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    fds = range(FIRST_PASSED_FD, FIRST_PASSED_FD + count)
    if which.strip("/"):
        fds_wanted = [
            fd for fd, name in zip(fds, [*names, *[""] * count], strict=False) if which.strip("/") in (str(fd), name)
        ]
    else:
        fds_wanted = list(fds)
    if not fds_wanted:
        raise DaemonError(f"failed to find systemd activated sockets with name {which!r}")
    found = []
    for fd in fds_wanted:
        os.set_inheritable(fd, False)
        found.append(Listener(socket.socket(fileno=fd), None, "", f"fd://{fd}"))
    return found

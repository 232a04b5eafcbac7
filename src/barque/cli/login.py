"""`login` and `logout`."""

from __future__ import annotations

import os
import sys

from barque.base.errors import BarqueError, InvalidInputError
from barque.cli.connection import config_folder
from barque.cli.credentials import HUB_SERVER, CredentialStore, hostname
from barque.client.http import ApiError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from barque.cli.flags import Options
    from barque.cli.verb import Invocation


def login(call: Invocation) -> int:
    """Prove credentials at a registry and keep them."""
    options = call.options
    _check_flags(options)
    server = call.words[0] if call.words else HUB_SERVER
    if server in ("docker.io", "index.docker.io"):
        server = HUB_SERVER
    if server != HUB_SERVER and "://" in server:
        server = hostname(server)
    user, password = options["username"], options["password"]
    if password:
        _warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if options["password-stdin"]:
        password = sys.stdin.read().rstrip("\r\n")
    store = CredentialStore(config_folder(call.global_options))
    known = store.get(server) if not user and not password else {}
    if known and (known.get("username") or known.get("identitytoken")):
        try:
            return _login(call, store, known, stored=True)
        except ApiError as error:
            _warn("Login did not succeed, error: " + str(error))
    user, password = _asked(user, password, known.get("username", ""))
    return _login(call, store, {"username": user, "password": password, "serveraddress": server})


def _check_flags(options: Options) -> None:
    if options["password"] and options["password-stdin"]:
        raise InvalidInputError("conflicting options: cannot specify both --password and --password-stdin")
    if options["password-stdin"] and not options["username"]:
        raise InvalidInputError("the --password-stdin option requires --username to be set")
    for name in ("username", "password"):
        if options.given(name) and not options[name]:
            raise InvalidInputError(f"{name} is empty")


def _login(call: Invocation, store: CredentialStore, auth: dict[str, str], *, stored: bool = False) -> int:
    if stored:
        name = f" [Username: {auth['username']}]" if auth.get("username") else ""
        _warn(f"Authenticating with existing credentials...{name}\n")
        _warn(" Info -> To login with a different account, run 'barque logout' followed by 'barque login'\n\n")
    answer = call.api.post("/auth", {key: value for key, value in auth.items() if value}) or {}
    token = answer.get("IdentityToken")
    kept = {**auth, "password": "", "identitytoken": token} if token else auth
    if store.store(kept) and not stored:
        _warn(
            f"\nWARNING! Your credentials are stored unencrypted in '{store.path}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    print(answer.get("Status") or "Login Succeeded")
    return 0


def _asked(user: str, password: str, known: str) -> tuple[str, str]:
    """Return a name and a password, asked on the terminal where the flags do not give them."""
    if user and password:
        return user, password
    if not os.isatty(0):
        raise InvalidInputError("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        user = input(f"Username ({known}): " if known else "Username: ").strip() or known
        if not user:
            raise InvalidInputError("Error: Non-null Username Required")
    if not password:
        import getpass

        password = getpass.getpass("Password: ")
        if not password:
            raise InvalidInputError("Error: Password Required")
    return user, password


def logout(words: list[str], options: Options, global_options: Options) -> int:
    """Forget credentials."""
    server = words[0] if words else HUB_SERVER
    shown = server if server == HUB_SERVER else hostname(server)
    names = [server] if server == HUB_SERVER else [server, shown, f"http://{shown}", f"https://{shown}"]
    store = CredentialStore(config_folder(global_options))
    print(f"Removing login credentials for {shown}")
    problems = []
    for name in dict.fromkeys(names):
        try:
            store.erase(name)
        except BarqueError as error:
            problems.append(f"{name}: {error}")
    if len(problems) == len(dict.fromkeys(names)):
        _warn("WARNING: could not erase credentials:\n" + "\n".join(problems))
    return 0


def _warn(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr)

"""Credentials of registries in the client's configuration file, or with the helpers that it names.

config.json has `auths` (server: base64 of name and password), `credsStore` (one helper for all servers) and
`credHelpers` (a helper for one server). A helper is a program `docker-credential-<name>` that takes a verb
and speaks JSON on its standard streams.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess

from barque.base.errors import BarqueError, InvalidInputError
from barque.base.files import write_atomic

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

HUB_SERVER = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found in native keychain"
_HELPER_SECONDS = 60


class CredentialStore:
    """What is kept of users' credentials.

    Args:
        folder: of the client's configuration.
    """

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/config.json"
        self._content = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                value = json.loads(file.read() or b"{}")
        except OSError:
            return {}
        except ValueError as error:
            raise InvalidInputError(f"error parsing config file ({self.path}): {error}") from error
        if not isinstance(value, dict):
            raise InvalidInputError(f"error parsing config file ({self.path}): not an object")
        return value

    @property
    def content(self) -> dict[str, Any]:
        """Return all that the configuration file holds."""
        return self._content

    def get(self, server: str) -> dict[str, str]:
        """Return a server's credentials in the API's form, empty where there are none."""
        helper = self._helper(server)
        if helper:
            return _from_helper(helper, server)
        auths = self._auths()
        entry = auths.get(server)
        if entry is None:
            entry = next((value for key, value in auths.items() if hostname(key) == hostname(server)), None)
        return _decoded(entry, server) if isinstance(entry, dict) else {}

    def store(self, auth: dict[str, str]) -> bool:
        """Keep credentials under their server's name; tell whether they lie in a plain file."""
        server = auth["serveraddress"]
        helper = self._helper(server)
        if helper:
            token = auth.get("identitytoken", "")
            user, secret = (_TOKEN_USER, token) if token else (auth["username"], auth["password"])
            _run_helper(helper, "store", json.dumps({"ServerURL": server, "Username": user, "Secret": secret}))
            self._set(server, {})
            return False
        pair = f"{auth.get('username', '')}:{auth.get('password', '')}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        if auth.get("identitytoken"):
            entry["identitytoken"] = auth["identitytoken"]
        self._set(server, entry)
        return True

    def erase(self, server: str) -> None:
        """Forget a server's credentials."""
        helper = self._helper(server)
        if helper:
            _run_helper(helper, "erase", server)
        if server in self._auths():
            self._set(server, None)

    def _auths(self) -> dict[str, Any]:
        found = self._content.get("auths")
        return found if isinstance(found, dict) else {}

    def _set(self, server: str, entry: dict[str, str] | None) -> None:
        auths = {**self._auths()}
        if entry is None:
            auths.pop(server, None)
        else:
            auths[server] = entry
        self._content = {"auths": auths, **{k: v for k, v in self._content.items() if k != "auths"}}
        # A link that the user made is written through, not replaced.
        path = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        text = json.dumps(self._content, indent="\t", ensure_ascii=False)
        write_atomic(path, text.encode(), mode=0o600)

    def _helper(self, server: str) -> str:
        helpers = self._content.get("credHelpers")
        name = helpers.get(server) if isinstance(helpers, dict) else None
        name = name or self._content.get("credsStore") or ""
        if not isinstance(name, str) or (name and not name.replace("-", "").replace("_", "").isalnum()):
            raise InvalidInputError(f"invalid credential helper in {self.path}: {name!r}")
        return name


def server_of(domain: str) -> str:
    """Return the name under which the credentials of a reference's domain are kept."""
    return HUB_SERVER if domain in ("docker.io", "index.docker.io") else domain


def hostname(server: str) -> str:
    """Return the host in a server's name, with or without a scheme and a path."""
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0]


def header(auth: dict[str, str]) -> dict[str, str]:
    """Return the header that gives credentials to the engine."""
    kept = {key: value for key, value in auth.items() if value}
    data = json.dumps(kept, separators=(",", ":")).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(data).decode()}


def _decoded(entry: dict[str, Any], server: str) -> dict[str, str]:
    auth = {"serveraddress": server}
    for key in ("username", "password", "identitytoken", "registrytoken"):
        if isinstance(entry.get(key), str):
            auth[key] = entry[key]
    if entry.get("auth"):
        try:
            name, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except ValueError as error:
            raise InvalidInputError(f"invalid auth of {server} in the configuration file: {error}") from None
        if not colon:
            raise InvalidInputError(f"invalid auth of {server} in the configuration file")
        auth |= {"username": name, "password": password.strip("\0")}
    return auth


def _from_helper(helper: str, server: str) -> dict[str, str]:
    try:
        answer = _run_helper(helper, "get", server)
    except HelperError as error:
        if _NOT_FOUND in str(error):
            return {}
        raise
    try:
        value = json.loads(answer)
        user, secret = str(value["Username"]), str(value["Secret"])
    except (ValueError, KeyError, TypeError):
        raise HelperError(f"docker-credential-{helper} gave something that is no credential") from None
    if user == _TOKEN_USER:
        return {"serveraddress": server, "identitytoken": secret}
    return {"serveraddress": server, "username": user, "password": secret}


class HelperError(BarqueError):
    """A credential helper is missing or failed."""


def _run_helper(name: str, verb: str, text: str) -> str:
    program = shutil.which(f"docker-credential-{name}")
    if program is None:
        raise HelperError(
            f'error getting credentials - err: exec: "docker-credential-{name}": executable file not found in $PATH'
        )
    done = subprocess.run(
        [program, verb], input=text, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
    )
    if done.returncode != 0:
        said = (done.stdout.strip() or done.stderr.strip())[:2000]
        raise HelperError(f"error getting credentials - err: exit status {done.returncode}, out: `{said}`")
    return done.stdout

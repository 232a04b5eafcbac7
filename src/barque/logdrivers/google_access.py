"""Tokens for Google's services: a service account's file, or the machine's own account."""

import base64
import json
import math
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from barque.logdrivers.connection import HttpClient
from barque.logdrivers.entry import DriverError

SCOPE = "https://www.googleapis.com/auth/logging.write"
_METADATA = "http://metadata.google.internal"
_EARLY_S = 60


class Tokens:
    """Gives access tokens, new ones in time."""

    def __init__(self, environment: dict[str, str], metadata: str = _METADATA) -> None:
        self._path = environment.get("GOOGLE_APPLICATION_CREDENTIALS", "")
        self._metadata = metadata
        self._token = ""
        self._ends_s = -math.inf

    def get(self) -> str:
        """Return a token that is valid for a while.

        Raises:
            DriverError: there are no credentials, or they are refused.
        """
        if time.monotonic() > self._ends_s - _EARLY_S:
            row = self._of_account() if self._path else self._of_machine()
            try:
                self._token = str(row["access_token"])
                self._ends_s = time.monotonic() + float(row.get("expires_in") or 3600)
            except (KeyError, TypeError, ValueError):
                raise DriverError("unable to connect or authenticate with Google Cloud Logging: no token was given") \
                    from None  # fmt: skip
        return self._token

    def _of_account(self) -> dict[str, Any]:
        account = account_file(self._path)
        uri = str(account.get("token_uri") or "https://oauth2.googleapis.com/token")
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion(account, uri)}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return _json(HttpClient(uri).request("POST", urlsplit(uri).path or "/", urlencode(form).encode(), headers))

    def _of_machine(self) -> dict[str, Any]:
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        try:
            return _json(HttpClient(self._metadata).request("GET", path, None, {"Metadata-Flavor": "Google"}))
        except DriverError:
            raise DriverError(
                "google: could not find default credentials: set GOOGLE_APPLICATION_CREDENTIALS for the daemon to "
                "the file of a service account"
            ) from None


def account_file(path: str) -> dict[str, Any]:
    """Return a service account's file.

    Raises:
        DriverError: it cannot be read, or is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            row = json.load(file)
        if not (isinstance(row, dict) and row.get("client_email") and row.get("private_key")):
            raise ValueError("client_email and private_key are missing")
    except (OSError, ValueError) as error:
        raise DriverError(f"google: error getting credentials using {path}: {error}") from None
    return row


def assertion(account: dict[str, Any], uri: str) -> str:
    """Return the signed statement that a token is asked with (RFC 7523, RS256).

    Raises:
        DriverError: the key is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    now = int(time.time())
    head = {"alg": "RS256", "typ": "JWT", "kid": account.get("private_key_id") or ""}
    claims = {"iss": account["client_email"], "scope": SCOPE, "aud": uri, "iat": now, "exp": now + 3600}
    text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
    try:
        key = load_pem_private_key(str(account["private_key"]).encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DriverError(f"google: the service account's key cannot be read: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise DriverError("google: the service account's key is no RSA key")
    return f"{text}.{_encoded(key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(answer: tuple[int, bytes]) -> dict[str, Any]:
    status, text = answer
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if status != 200 or not isinstance(row, dict):
        words = text[:300].decode("utf-8", "replace")
        raise DriverError(f"unable to connect or authenticate with Google Cloud Logging: {status} {words}")
    return row

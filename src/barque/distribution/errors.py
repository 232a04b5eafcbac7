"""What goes wrong between us and a registry, in the words that Docker's users know.

BarqueError
├── RegistryError       the registry answered, and refused: its code and message
├── TransportError      the registry did not answer, or not in HTTP
└── CancelledError      whoever asked for it has gone
"""

import json
import re
import socket
import ssl
from email.message import Message
from http import HTTPStatus, client
from typing import Any

from barque.base.errors import BarqueError

_TEXT_MAX = 2000
_CODES = {401: "UNAUTHORIZED", 429: "TOOMANYREQUESTS"}


class CancelledError(BarqueError):
    """The transfer was called off."""


class TransportError(BarqueError):
    """The registry could not be reached, or the connection broke; trying again may help."""


class RegistryError(BarqueError):
    """A registry's refusal.

    Args:
        status: the HTTP status.
        code: the registry's code, such as MANIFEST_UNKNOWN; empty where it gave none.
        message: its message.
        retry_after_s: how long it asks us to wait.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after_s: float = 0) -> None:
        text = f"{code.lower().replace('_', ' ')}: {message}" if code else message
        super().__init__(text)
        self.status = status
        self.code = code
        self.http_status = 401 if code == "UNAUTHORIZED" else 500
        self.retry_after_s = retry_after_s

    @property
    def is_final(self) -> bool:
        """Whether asking again, or asking another endpoint in the same way, cannot help."""
        return self.status < 500 and self.status not in (408, 425)


class PullError(RegistryError):
    """A refusal told as Docker tells it of a pull: the reference in front."""

    def __init__(self, cause: RegistryError, prefix: str) -> None:
        super().__init__(cause.status, cause.code, "")
        self.args = (f"{prefix}: {cause}",)
        self.http_status = 404


def of_pull(error: RegistryError, familiar_name: str, familiar: str) -> BarqueError:
    """Return a refusal as Docker tells it when an image is pulled."""
    if error.code == "DENIED":
        what = f"pull access denied for {familiar_name}, repository does not exist or may require 'docker login'"
        return PullError(error, what)
    if error.code == "MANIFEST_UNKNOWN":
        return PullError(error, f"manifest for {familiar} not found")
    if error.code == "NAME_UNKNOWN":
        return PullError(error, f"repository {familiar_name} not found")
    return error


def of_answer(status: int, headers: "Message[str, str]", body: bytes) -> RegistryError:
    """Return what an answer with an error status says."""
    wait = headers.get("Retry-After", "")
    retry_after_s = float(wait) if re.fullmatch(r"\d{1,6}", wait) else 0
    code, message = _challenged(headers.get("WWW-Authenticate", ""))
    if not code:
        code, message = _told(status, body)
    return RegistryError(status, code, message, retry_after_s=retry_after_s)


def _challenged(challenge: str) -> tuple[str, str]:
    """Return what an OAuth challenge says of the token that was sent (RFC 6750, section 3.1)."""
    found = re.search(r'error="([^"]*)"', challenge)
    if found is None or not challenge.lower().startswith("bearer"):
        return "", ""
    text = re.search(r'error_description="([^"]*)"', challenge)
    if found[1] == "invalid_token":
        return "UNAUTHORIZED", text[1] if text else "authentication required"
    if found[1] == "insufficient_scope":
        return "DENIED", text[1] if text else "requested access to the resource is denied"
    return "", ""


def _told(status: int, body: bytes) -> tuple[str, str]:
    reason = _reason(status)
    if status >= 500:
        return "", f"received unexpected HTTP status: {reason}"
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        if status == 401:
            return "UNAUTHORIZED", "authentication required"
        if status == 429:
            return "TOOMANYREQUESTS", _short(body) or "too many requests"
        text = _short(body)
        return (
            "",
            f"error parsing HTTP {status} response body: {text!r}" if text else f"unexpected HTTP status: {reason}",
        )
    if isinstance(value, dict):
        if isinstance(value.get("details"), str):
            return _CODES.get(status, "UNKNOWN"), _clean(value["details"])
        errors = value.get("errors")
        if isinstance(errors, list) and errors and isinstance(errors[0], dict):
            return _first(errors[0])
    if status == 404:
        return (
            "",
            f"error parsing HTTP 404 response body: no error details found in HTTP response body: {_short(body)!r}",
        )
    return _CODES.get(status, ""), f"unexpected HTTP status: {reason}"


def _first(error: dict[str, Any]) -> tuple[str, str]:
    code, message = error.get("code"), error.get("message")
    code = code.upper() if isinstance(code, str) and re.fullmatch(r"[A-Za-z_]{1,64}", code) else "UNKNOWN"
    return code, _clean(message) if isinstance(message, str) else "unknown error"


def _reason(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _short(body: bytes) -> str:
    return _clean(body[:_TEXT_MAX].decode("utf-8", "replace").strip())


def _clean(text: str) -> str:
    """Return a stranger's text without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text[:_TEXT_MAX])


def of_exception(method: str, url: str, error: BaseException, address: str) -> TransportError:
    """Return an exception of the network as Go's client would say it.

    Args:
        method: of the request.
        url: of the request.
        error: the exception.
        address: host:port that was connected to.
    """
    return TransportError(f'{method.capitalize()} "{url}": {_network(error, address)}')


def _network(error: BaseException, address: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {_certificate(error)}"
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
            return "http: server gave HTTP response to HTTPS client"
        return f"remote error: tls: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {address.rpartition(':')[0]}: no such host"
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {address}: connect: connection refused"
    if isinstance(error, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, client.RemoteDisconnected | ConnectionResetError | BrokenPipeError | EOFError):
        return "EOF"
    if isinstance(error, client.HTTPException):
        return f"net/http: HTTP/1.x transport connection broken: malformed HTTP response ({type(error).__name__})"
    if isinstance(error, OSError) and error.errno:
        return f"dial tcp {address}: {error.strerror.lower() if error.strerror else error}"
    return str(error) or type(error).__name__


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    text = error.verify_message or str(error)
    if "self-signed" in text or "self signed" in text or "unable to get" in text:
        return "certificate signed by unknown authority"
    if "has expired" in text:
        return "certificate has expired or is not yet valid"
    return text

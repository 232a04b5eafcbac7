"""Errors as the distribution specification writes them: a status, a code, a message, a detail."""

from typing import Any


class RegistryError(Exception):
    """A request that is refused; becomes the answer's body.

    Args:
        status: of HTTP.
        code: one of the specification's.
        message: for people.
        detail: more of it, any JSON.
        headers: of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, *, detail: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = headers or {}


def name_invalid(name: str) -> RegistryError:
    """Return the refusal of what is no repository name."""
    return RegistryError(400, "NAME_INVALID", "invalid repository name", detail={"name": name[:300]})


def name_unknown(name: str) -> RegistryError:
    """Return the answer to a repository that is not here."""
    return RegistryError(404, "NAME_UNKNOWN", "repository name not known to registry", detail={"name": name})


def digest_invalid(text: str, why: str = "provided digest did not match uploaded content") -> RegistryError:
    """Return the refusal of a digest that is malformed, of an unknown algorithm or another than the content's."""
    return RegistryError(400, "DIGEST_INVALID", why, detail={"digest": text[:300]})


def blob_unknown(digest: str) -> RegistryError:
    """Return the answer to a blob that the repository does not have."""
    return RegistryError(404, "BLOB_UNKNOWN", "blob unknown to registry", detail={"digest": digest})


def manifest_unknown(reference: str) -> RegistryError:
    """Return the answer to a manifest that the repository does not have."""
    return RegistryError(404, "MANIFEST_UNKNOWN", "manifest unknown", detail={"reference": reference})


def manifest_invalid(why: str, *, status: int = 400) -> RegistryError:
    """Return the refusal of a manifest."""
    return RegistryError(status, "MANIFEST_INVALID", f"manifest invalid: {why}")


def upload_unknown(upload: str) -> RegistryError:
    """Return the answer to an upload that was never begun, ended or was cancelled."""
    return RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", detail={"uuid": upload})


def upload_invalid(why: str, *, status: int = 400) -> RegistryError:
    """Return the refusal of a part of an upload."""
    return RegistryError(status, "BLOB_UPLOAD_INVALID", f"blob upload invalid: {why}")


def unsupported(why: str, *, status: int = 405) -> RegistryError:
    """Return the refusal of what this registry does not do."""
    return RegistryError(status, "UNSUPPORTED", why)

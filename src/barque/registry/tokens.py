"""Bearer tokens: JSON web tokens that a token server signed, checked with its public keys."""

import json
from typing import Any, NamedTuple

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from barque.base.errors import InvalidInputError
from barque.registry.auth import Access, unauthorized
from barque.registry.errors import RegistryError

_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_LEEWAY_S = 60


class TokenSettings(NamedTuple):
    """Where clients get tokens and what these must say."""

    realm: str
    service: str
    issuer: str
    keys: tuple[str, ...]
    """Files: PEM public keys or certificates, or JSON web key sets."""


class Tokens:
    """Accepts signed tokens that grant the access a request needs.

    Raises:
        InvalidInputError: a key file holds no key.
        OSError: a key file cannot be read.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._keys = [key for path in settings.keys for key in read_keys(path)]
        if not self._keys:
            raise InvalidInputError("token authentication needs the token server's public keys")

    async def check(self, header: str, needs: tuple[Access, ...]) -> str:
        """Return the token's subject (see barque.registry.auth.Guard)."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise self._refused(needs, "")
        claims = self._claims(token.strip())
        if claims is None:
            raise self._refused(needs, "invalid_token")
        if not all(granted(claims.get("access"), need) for need in needs):
            raise self._refused(needs, "insufficient_scope")
        return str(claims.get("sub") or "")

    def _refused(self, needs: tuple[Access, ...], error: str) -> RegistryError:
        challenge = f'Bearer realm="{self._settings.realm}",service="{self._settings.service}"'
        if needs:
            challenge += f',scope="{" ".join(map(str, needs))}"'
        if error:
            challenge += f',error="{error}"'
        return unauthorized(challenge, needs)

    def _claims(self, token: str) -> dict[str, Any] | None:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            return None
        if header.get("alg") not in _ALGORITHMS:
            return None
        for identifier, key in self._keys:
            if identifier and header.get("kid") and identifier != header["kid"]:
                continue
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[header["alg"]],
                    audience=self._settings.service,
                    issuer=self._settings.issuer or None,
                    leeway=_LEEWAY_S,
                    options={"require": ["exp"], "verify_iss": bool(self._settings.issuer)},
                )
            except (jwt.PyJWTError, TypeError, ValueError):
                continue
            return claims
        return None


def granted(access: Any, need: Access) -> bool:
    """Tell whether a token's `access` claim grants what is needed."""
    if not isinstance(access, list):
        return False
    actions: set[str] = set()
    for entry in access:
        if isinstance(entry, dict) and entry.get("type") == need.kind and entry.get("name") == need.name:
            given = entry.get("actions")
            actions.update(a for a in given if isinstance(a, str)) if isinstance(given, list) else None
    return "*" in actions or set(need.actions) <= actions


def read_keys(path: str) -> list[tuple[str, Any]]:
    """Return the public keys of a file with their identifiers (empty where they have none).

    Raises:
        InvalidInputError: it holds none.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        if data.lstrip().startswith(b"{"):
            found = json.loads(data)
            keys = jwt.PyJWKSet.from_dict(found if "keys" in found else {"keys": [found]}).keys
            return [(key.key_id or "", key.key) for key in keys]
        if b"BEGIN CERTIFICATE" in data:
            return [("", certificate.public_key()) for certificate in x509.load_pem_x509_certificates(data)]
        return [("", load_pem_public_key(data))]
    except (ValueError, jwt.PyJWTError, TypeError) as error:
        raise InvalidInputError(f"{path}: no public key: {error}") from None

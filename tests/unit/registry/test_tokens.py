"""Who may do what: signed tokens."""

import base64
import json
import time

import pytest

pytest.importorskip("jwt", reason="PyJWT is not installed: token authentication is not tested")

from barque.base.errors import InvalidInputError
from barque.registry.auth import Access
from barque.registry.errors import RegistryError
from barque.registry.tokens import Tokens, TokenSettings, granted

PUSH = Access("repository", "a/b", ("pull", "push"))


def test_access_is_granted_by_kind_name_and_action():
    access = [{"type": "repository", "name": "a/b", "actions": ["pull"]}]
    assert granted(access, Access("repository", "a/b", ("pull",)))
    assert not granted(access, PUSH)
    assert granted([*access, {"type": "repository", "name": "a/b", "actions": ["push"]}], PUSH)
    assert granted([{"type": "repository", "name": "a/b", "actions": ["*"]}], PUSH)
    for wrong in (None, "x", [None], [{"type": "repository"}], [{"type": "registry", "name": "a/b", "actions": ["*"]}]):
        assert not granted(wrong, PUSH)


@pytest.fixture
def signer(tmp_path):
    jwt = pytest.importorskip("jwt")
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(public)
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "one", "alg": "ES256"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk]}))

    def sign(**claims):
        whole = {"iss": "issuer", "aud": "service", "sub": "jane", "exp": time.time() + 100, **claims}
        return "Bearer " + jwt.encode({k: v for k, v in whole.items() if v is not None}, key, "ES256", {"kid": "one"})

    return sign


@pytest.mark.parametrize("file", ["key.pem", "keys.json"])
async def test_tokens_grant_what_their_server_signed(tmp_path, signer, file):
    guard = Tokens(TokenSettings("https://t/token", "service", "issuer", (str(tmp_path / file),)))
    access = [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}]
    assert await guard.check(signer(access=access), (PUSH,)) == "jane"
    assert await guard.check(signer(), ()) == "jane"
    refused = {
        signer(): "insufficient_scope",
        signer(access=access, exp=1): "invalid_token",
        signer(access=access, exp=None): "invalid_token",
        signer(access=access, iss="other"): "invalid_token",
        signer(access=access, aud="other"): "invalid_token",
        signer(access=access)[:-4] + "AAAA": "invalid_token",
        "Bearer " + base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + ".e30.": "invalid_token",
        "Bearer x": "invalid_token",
    }
    for header, error in refused.items():
        with pytest.raises(RegistryError) as caught:
            await guard.check(header, (PUSH,))
        assert caught.value.headers["WWW-Authenticate"] == (
            f'Bearer realm="https://t/token",service="service",scope="repository:a/b:pull,push",error="{error}"'
        )
    with pytest.raises(RegistryError) as caught:
        await guard.check("", ())
    assert caught.value.headers["WWW-Authenticate"] == 'Bearer realm="https://t/token",service="service"'


def test_files_without_keys_are_refused(tmp_path):
    pytest.importorskip("jwt")
    path = tmp_path / "x"
    for text in (
        "",
        "nonsense",
        "{}",
        '{"keys": []}',
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ):
        path.write_text(text)
        with pytest.raises(InvalidInputError):
            Tokens(TokenSettings("r", "s", "i", (str(path),)))

import base64
import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from barque.base.errors import InvalidInputError
from barque.distribution.credentials import NOBODY, challenges, from_header


def encoded(value, urlsafe=True):
    data = json.dumps(value).encode()
    return (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(data).decode()


def test_credentials_come_in_either_alphabet_with_or_without_padding():
    value = {"username": "u>?", "password": "p~~~", "serveraddress": "r:5000"}
    for urlsafe in (True, False):
        text = encoded(value, urlsafe)
        assert from_header(text) == from_header(text.rstrip("="))
        assert from_header(text)[:2] == ("u>?", "p~~~")


def test_an_auth_pair_counts_where_name_and_password_are_empty():
    pair = base64.b64encode(b"me:secret:with colon").decode()
    assert from_header(encoded({"auth": pair}))[:2] == ("me", "secret:with colon")


@pytest.mark.parametrize("text", ["!", "bm8=", "W10=", encoded({"username": 3}), "x" * 100_000])
def test_what_is_no_credential_is_refused(text):
    with pytest.raises(InvalidInputError, match="invalid X-Registry-Auth header"):
        from_header(text)


def test_no_header_is_nobody():
    assert from_header("") == NOBODY
    assert from_header(encoded({})) == NOBODY
    assert from_header("bnVsbA==") == NOBODY


def test_a_bearer_challenge_is_read_with_commas_in_its_scope():
    header = 'Bearer realm="https://auth.x/token",service="x",scope="repository:a/b:pull,push",error="invalid_token"'
    (found,) = challenges([header])
    assert found.scheme == "bearer"
    assert found.parameters["scope"] == "repository:a/b:pull,push"
    assert found.parameters["realm"] == "https://auth.x/token"


def test_several_challenges_in_one_or_more_headers_are_told_apart():
    found = challenges(['Basic realm="a \\"quoted\\" one", Bearer realm=x, service=y', "Negotiate"])
    assert [c.scheme for c in found] == ["basic", "bearer", "negotiate"]
    assert found[0].parameters == {"realm": 'a "quoted" one'}
    assert found[1].parameters == {"realm": "x", "service": "y"}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(max_size=200))
def test_no_challenge_breaks_the_reader(text):
    for challenge in challenges([text]):
        assert challenge.scheme == challenge.scheme.lower()

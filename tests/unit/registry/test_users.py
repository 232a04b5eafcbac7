"""Who may do what: htpasswd files."""

import base64
import os

import pytest

from barque.base.errors import InvalidInputError
from barque.registry.auth import Access, Htpasswd, basic_credentials, parse_htpasswd
from barque.registry.errors import RegistryError

PUSH = Access("repository", "a/b", ("pull", "push"))


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_malformed_credentials_are_none():
    assert basic_credentials(basic("u", "p:q")) == ("u", "p:q")
    for header in ("", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"x").decode(), "Bearer x", "Basic /w=="):
        assert basic_credentials(header) is None


def test_only_bcrypt_lines_are_taken():
    assert parse_htpasswd("# users\n\n") == {}
    for line in ("x", ":y", "u:{SHA}abc", "u:$apr1$x", "u:$2y$05$short"):
        with pytest.raises(InvalidInputError):
            parse_htpasswd(line)


async def test_passwords_are_checked_and_the_file_is_read_again(tmp_path):
    bcrypt = pytest.importorskip("bcrypt")

    def line(user, password):
        return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"

    path = tmp_path / "users"
    path.write_text(line("jane", "one"))
    guard = Htpasswd(str(path), "Here")
    for _ in range(2):
        assert await guard.check(basic("jane", "one"), (PUSH,)) == "jane"
    for header in ("", basic("jane", "two"), basic("joe", "one"), "Basic x"):
        with pytest.raises(RegistryError) as caught:
            await guard.check(header, (PUSH,))
        assert caught.value.status == 401
        assert caught.value.headers == {"WWW-Authenticate": 'Basic realm="Here"'}
    path.write_text(line("joe", "one"))
    os.utime(path, (1, 1))
    assert await guard.check(basic("joe", "one"), ()) == "joe"
    with pytest.raises(RegistryError):
        await guard.check(basic("jane", "one"), ())

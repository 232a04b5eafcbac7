"""What the URL of a repository says."""

import pytest

from barque.base.errors import InvalidInputError
from barque.builder.repositories import Repository, repository_of

URL = "https://example.com/a/b.git"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", {}), ("#main", {"ref": "main"}), ("#:sub", {"subdir": "sub"}), ("#v1:/x/../y", {"ref": "v1", "subdir": "y"}),
        ("?ref=main", {"ref": "main"}), ("?ref=main#main", {"ref": "main"}), ("?tag=v1", {"ref": "refs/tags/v1"}),
        ("?branch=refs/heads/x&subdir=d", {"ref": "refs/heads/x", "subdir": "d"}), ("?commit=abc&checksum=abc", {"checksum": "abc"}),
        ("?keep-git-dir", {"keep_git": True}), ("?keep-git-dir=false", {"keep_git": False}), ("?submodules=0", {"submodules": False}),
        ("?mtime=commit", {"commit_times": True}), ("?mtime=checkout", {}),
        ("?fetch-by-commit=1&commit=abc#main", {"ref": "abc", "checksum": "abc"}),
    ],
)  # fmt: skip
def test_keys_and_fragment_are_read(said: str, expected: dict[str, object]) -> None:
    assert repository_of(URL + said) == Repository(URL)._replace(**expected)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("?x=1", "unexpected query 'x'"), ("?ref=a&ref=b", "multiple values"), ("?ref=", "'ref' has no value"),
        ("?ref=a#b", "ref conflicts: 'b' vs 'a'"), ("?tag=a&branch=b", "ref conflicts"), ("?subdir=a#:b", "subdir conflicts"),
        ("?commit=a&checksum=b", "checksum conflicts"), ("?keep-git-dir=maybe", "invalid keep-git-dir value: 'maybe'"),
        ("?mtime=never", "invalid mtime value"), ("?fetch-by-commit", "needs a checksum"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(said: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message.replace("?", r"\?")):
        repository_of(URL + said)

"""Ignore files and wildcards."""

import fnmatch

import pytest
from hypothesis import given, settings, strategies as st

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.patterns import Matcher, has_wildcards, read_ignore, wildcard


def test_an_ignore_file_is_read_line_by_line():
    text = "\ufeff# comment\n\n  a/ \n/b//c\n!  /d\n # no comment\n./e/../f\n/\n!\n"
    assert read_ignore(text) == ["a", "b/c", "!d", "# no comment", "f", "/", "!"]


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        ("**", "file", True), ("**", "dir/file", True), ("**/", "file", True), ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True), ("dir/**", "dir/dir2/file", True), ("dir/**", "dir", False),
        ("**/dir", "dir", True), ("**/dir", "a/b/dir", True), ("**/dir/file", "x/dir/file", True),
        ("**/dir2/*", "dir/dir2/file", True), ("**/dir2/*", "dir/dir2/dir2/file", True),
        ("**file", "file", True), ("**file", "dir/file", True), ("**/file", "dir/file", True),
        ("**file", "dir/dirfile", True), ("a**b", "a/x/b", True), ("*", "file", True), ("*", "dir/file", True),
        ("*.go", "a.go", True), ("*.go", "x/a.go", False), ("x/*.go", "x/a.go", True), ("a?c", "abc", True),
        ("a?c", "a/c", False), ("[a-c]x", "bx", True), ("[^a]x", "ax", False), ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False), ("dir", "dir/sub/file", True), ("di", "dir", False), ("a.b", "axb", False),
        ("\\**", "*x", True), ("**/\\*x", "d/*x", True),
    ],
)  # fmt: skip
def test_a_pattern_matches_as_dockers(pattern, path, matched):
    assert Matcher([pattern]).matches(path) is matched


def test_the_last_matching_pattern_decides():
    matcher = Matcher(["*", "!keep", "keep/not", "!keep/not/really"])
    assert matcher.matches("x")
    assert not matcher.matches("keep")
    assert not matcher.matches("keep/a")
    assert matcher.matches("keep/not")
    assert not matcher.matches("keep/not/really")


@pytest.mark.parametrize("pattern", ["[", "a[", "[a", "[]a]", "[-]", "a\\", "[a-", "[x-]"])
def test_broken_patterns_are_refused(pattern):
    with pytest.raises(DockerfileError, match="syntax error in pattern"):
        Matcher([pattern])


def test_an_empty_exclusion_is_refused():
    with pytest.raises(DockerfileError, match='illegal exclusion pattern: "!"'):
        Matcher(["!"])


def test_wildcards_are_recognised_unless_escaped():
    assert [has_wildcards(p) for p in ("a", "a*", "a\\*", "a?", "[", "\\\\*")] == [False, True, False, True, True, True]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab*?[]^-\\/!. ")), max_size=20), st.text(alphabet="ab/.", max_size=12))
def test_any_pattern_matches_or_is_refused(pattern, path):
    try:
        Matcher([pattern]).matches(path)
    except DockerfileError:
        pass


def test_a_pattern_of_many_stars_is_answered_at_once():
    assert not wildcard("*a" * 50 + "b").match("a" * 200)
    assert wildcard("*a" * 50 + "*").match("a" * 200)


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_simple_wildcards_mean_what_the_shell_means(pattern, path):
    assert bool(wildcard(pattern).match(path)) == fnmatch.fnmatchcase(path, pattern)

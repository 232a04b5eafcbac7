"""Patterns of filters match what Go's expressions do, and none takes for ever."""

import re

import pytest
from hypothesis import given, strategies

from barque.base.go_regex import RegexError, Search

# Patterns that Python's engine understands in the same way.
_ATOMS = strategies.sampled_from(["a", "b", ".", "[ab]", "[^a]", "[b-c]", r"\w", r"\d", r"\b", "^", r"\.", "(?i:A)", "_"])
_QUANTIFIERS = strategies.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?"])


def _patterns():
    pieces = strategies.tuples(_ATOMS, _QUANTIFIERS).map(
        lambda piece: piece[0] if piece[0] in ("^", r"\b") else "".join(piece)
    )
    rows = strategies.lists(pieces, max_size=4).map("".join)
    return strategies.recursive(
        rows,
        lambda inner: strategies.one_of(
            strategies.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
            strategies.tuples(inner, _QUANTIFIERS, rows).map(lambda three: f"(?:{three[0]}){three[1]}{three[2]}"),
        ),
        max_leaves=5,
    )


@given(_patterns(), strategies.text("aAbcd1_.- \n", max_size=8))
def test_it_finds_what_pythons_engine_finds(pattern, text):
    assert Search([pattern]).finds(text) == bool(re.search(pattern, text, re.ASCII))


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        ("^/?web$", "web", "web2"),
        ("web|db", "mydb", "cache"),
        ("^a.c$", "abc", "a\nc"),
        ("(?s)^a.c$", "a\nc", "ac"),
        ("a$", "ba", "a\n"),
        ("(?m)a$", "a\nb", "ab"),
        ("(?i)WEB", "a-web", "wb"),
        ("(?i:W)eb", "web", "WEB"),
        ("a(?i)b|c", "C", "A"),
        ("[[:alpha:]]{3}", "1abc", "ab1"),
        ("[^[:^digit:]]", "1", "a"),
        (r"[\d-]x", "-x", "ax"),
        ("[]a]", "]", "b"),
        ("[a-]", "-", "b"),
        (r"\x41\x{42}\103", "ABC", "abc"),
        (r"\pL\P{L}", "é1", "11"),
        ("a{,2}", "a{,2}", "aa"),
        ("(?P<name>a)(?<other>b)", "ab", "a"),
        (r"\Aab\z", "ab", "abc"),
        (r"a\Bb", "ab", "a-b"),
        ("", "anything", None),
        ("(|a)+b", "b", "a"),
        ("(a*)*b", "aaab", "aaa"),
        (r"^\Qa.(b\E+$", "a.(bb", "axbb"),
        (r"\Q[a|b)", "[a|b)", "a"),
        (r"(?i)^\QA\b\Ec|d$", r"a\BC", "ac"),
    ],
)
def test_the_syntax_is_gos(pattern, found, not_found):
    search = Search([pattern])
    assert search.finds(found)
    assert not_found is None or not search.finds(not_found)


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[", "[a", "[b-a]", "*", "a**", "a{2}{3}", "a{1001}", "a{3,2}", "(?=a)", "(?<!a)", r"\1", r"\Z", "\\",
     "[[:nosuch:]]", "(?)", "(?i", r"\x{110000}", "(" * 200 + ")" * 200, r"\q", r"a\E", r"\Q\E*",
     r"[\Qa\E]"],
)  # fmt: skip
def test_what_go_refuses_matches_nothing(pattern):
    assert not any(Search([pattern]).finds(text) for text in (pattern, "", "a"))
    assert Search([pattern, "b"]).finds("b")


@pytest.mark.parametrize("pattern", ["(a+)+$", "^(a|a)*$", "(.*a){20}$", "(a?){50}a{50}$"])
def test_a_pattern_with_very_many_ways_through_is_searched_at_once(pattern):
    assert not Search([pattern]).finds("a" * 2000 + "b")


@pytest.mark.parametrize("patterns", [["(a{100}){100}"], ["((){1000}){1000}"], ["a{600}", "b{600}"]])
def test_patterns_that_are_too_large_together_are_refused(patterns):
    with pytest.raises(RegexError, match="more than 1000 steps"):
        Search(patterns)

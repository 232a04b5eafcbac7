"""Variables in words: the twelve forms of substitution and their errors."""

import pytest
from hypothesis import given, settings, strategies as st

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.words import Rules, expand

_VALUES = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": "", "FRUITS": "apple,banana,banana", "P": "a*b?c"}


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("hello", "hello"), ("he'll'o", "hello"), ('he"ll"o', "hello"), ("hell\\o", "hello"), ("hel\\\\lo", "hel\\lo"),
        ("$PWD", "/home"), ("${PWD}x", "/homex"), ("'$PWD'", "$PWD"), ('"$PWD"', "/home"), ("\\$PWD", "$PWD"),
        ("$", "$"), ("he$.xx", "he$.xx"), ("he$xxx", "he"), ("he$KOREAN", "he한국어"),
        ("${XXX:-000}", "000"), ("${NULL:-000}", "000"), ("${NULL-000}", ""), ("${XXX-000}", "000"),
        ("${PWD:-000}", "/home"), ("${XXX:-$PWD}y", "/homey"), ("${XXX:-${PWD}z}", "/homez"),
        ("${PWD:+111}", "111"), ("${NULL:+111}", ""), ("${NULL+111}", "111"), ("${XXX+111}", ""),
        ("${PWD:?no}", "/home"), ("${NULL?no}", ""),
        ("${FRUITS#*,}", "banana,banana"), ("${FRUITS##*,}", "banana"), ("${FRUITS%,*}", "apple,banana"),
        ("${FRUITS%%,*}", "apple"), ("${FRUITS/banana/kiwi}", "apple,kiwi,banana"),
        ("${FRUITS//banana/kiwi}", "apple,kiwi,kiwi"), ("${PWD/\\/home/x}", "x"), ("${P%\\**}", "a"),
        ("${P#a\\*}", "b?c"), ("${P//\\?/!}", "a*b!c"), ("'a\\'", "a\\"), ('"a\\"b"', 'a"b'), ('"a\\b"', "a\\b"),
        ("a<b", "a<b"), ("<<EOF", "<<EOF"), ("$1x", "x"), ("${SHELL}_$PWD", "bash_/home"),
    ],
)  # fmt: skip
def test_a_word_is_expanded(word, result):
    assert expand(word, _VALUES).text == result


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${}", "syntax error: bad substitution"), ("${:x}", "syntax error: bad substitution"),
        ("${{x}", "syntax error: bad substitution"), ("${", "syntax error: missing '}'"),
        ("${PWD:-x", "syntax error: missing '}'"), ("${PWD:z}", "unsupported modifier (:z) in substitution"),
        ("${PWD~z}", "unsupported modifier (~) in substitution"), ("${PWD:#x}", "unsupported modifier (:#) in substitution"),
        ("${XXX:?gone}", "XXX: gone"), ("${XXX?}", "XXX: is not allowed to be unset"),
        ("${NULL:?}", "NULL: is not allowed to be empty"),
        ("'abc", "unexpected end of statement while looking for matching single-quote"),
        ('"abc', "unexpected end of statement while looking for matching double-quote"),
        ("${PWD/x}", "syntax error: missing '/' in ${}"),
        ("${PWD#\\a}", "invalid pattern (\\a) in substitution: invalid escape '\\a'"),
    ],
)  # fmt: skip
def test_a_broken_word_says_what_is_wrong(word, message):
    with pytest.raises(DockerfileError) as caught:
        expand(word, _VALUES)
    assert str(caught.value).endswith(f": {message}")
    assert str(caught.value).startswith("failed to process ")


def test_words_are_split_after_the_substitution():
    values = {"A": "1 2", "B": " x "}
    assert expand("$A $B '$A' \"$A\"", values).words == ["1", "2", "x", "$A", "1 2"]


def test_names_used_and_missing_are_told():
    found = expand("$A ${B:-x}", {"A": "1"})
    assert (found.used, found.missing) == ({"A"}, {"B"})


def test_unset_variables_may_be_kept():
    assert expand("$A ${B} ${C:-d}", {}, Rules(keep_unset=True)).text == "$A ${B} ${C:-d}"


def test_deep_nesting_is_refused():
    with pytest.raises(DockerfileError):
        expand("${a:-" * 5000 + "}" * 5000, {})


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("${}:-+?#%/\\'\"ab*< \n")), max_size=60))
def test_any_word_is_expanded_or_refused(word):
    try:
        expand(word, {"a": "aab*/", "b": ""})
    except DockerfileError:
        pass


@given(st.text(alphabet=st.characters(exclude_characters="$\\'\"<", exclude_categories=["Cs"])))
def test_a_word_without_special_characters_is_itself(word):
    assert expand(word, {"a": "b"}).text == word

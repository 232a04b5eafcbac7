"""The parser against BuildKit's own pairs of Dockerfile and result."""

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.lines import parse
from barque.dockerfile.stages import parse as parse_stages

_DATA = next(
    (p for p in (folder / "shared/specs/dockerfile-parser-testdata" for folder in Path(__file__).parents) if p.is_dir()),
    None,
)
_PAIRS = sorted((_DATA / "testfiles").iterdir()) if _DATA else []
_BROKEN = sorted((_DATA / "testfiles-negative").iterdir()) if _DATA else []


def test_the_shared_test_data_is_here():
    if _DATA is None:
        pytest.skip("shared/specs/dockerfile-parser-testdata is missing: the pairs are not compared")
    assert len(_PAIRS) == 33 and len(_BROKEN) == 4


@pytest.mark.parametrize("folder", _PAIRS, ids=lambda p: p.name)
def test_a_dockerfile_has_the_tree_that_buildkit_prints(folder):
    text = (folder / "Dockerfile").read_text()
    assert parse(text).dump() == (folder / "result").read_text().rstrip("\n")


@pytest.mark.parametrize("folder", _BROKEN, ids=lambda p: p.name)
def test_a_broken_dockerfile_is_refused(folder):
    with pytest.raises(DockerfileError):
        parse((folder / "Dockerfile").read_text())


def test_lines_know_where_they_stand():
    if _DATA is None:
        pytest.skip("shared/specs/dockerfile-parser-testdata is missing")
    source = parse((_DATA / "testfile-line/Dockerfile").read_text())
    assert [(line.start, line.end) for line in source.lines] == [(5, 5), (11, 12), (17, 31)]


def test_an_empty_continuation_line_is_warned_about():
    text = (
        "FROM alpine\nRUN valid \\\n    continuation\nRUN something \\\n\n    following \\\n\n    more\n"
        "RUN non-indented \\\n# a comment\n   after-comment\n"
    )
    assert [w for _, w in parse(text).warnings] == [
        "Empty continuation line found in: RUN something     following     more"
    ]


def test_a_line_may_have_65535_characters_and_no_more():
    parse("FROM image\nLABEL test=" + "a" * (65535 - 11) + "\n")
    with pytest.raises(DockerfileError, match="dockerfile line greater than max allowed size of 65535"):
        parse("FROM image\nLABEL test=" + "a" * 65536 + "\n")


def test_heredocs_belong_to_their_instruction():
    text = "FROM x\nRUN <<EOF cat <<-'TWO'\none\nEOF\n\ttwo\n\tTWO\nCOPY <<a <<\"b\" /d/\n1\na\n2\nb\nONBUILD RUN <<E\nx\nE\n"
    _, run, copy, onbuild = parse(text).lines
    assert [(d.name, d.text, d.expands) for d in run.heredocs] == [("EOF", "one\n", True), ("TWO", "two\n", False)]
    assert [(d.name, d.content, d.expands) for d in copy.heredocs] == [("a", "1\n", True), ("b", "2\n", False)]
    assert onbuild.heredocs[0].content == "x\n"
    with pytest.raises(DockerfileError, match="unterminated heredoc"):
        parse("FROM x\nRUN <<EOF\nno end\n")


def test_directives_stand_at_the_top_and_once():
    assert parse("# escape=`\n# syntax=docker/dockerfile:1\nFROM x\nRUN a `\n  b\n").lines[1].args == ("a   b",)
    assert parse("\n# escape=`\nFROM x\n").escape == "\\"
    with pytest.raises(DockerfileError, match="only one escape parser directive can be used"):
        parse("# escape=`\n# escape=\\\nFROM x\n")
    with pytest.raises(DockerfileError, match="invalid escape token 'x' does not match ` or"):
        parse("# escape=x\nFROM x\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\nFOO bar", "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)"),
        ("FROM a\nXYZZY", "dockerfile parse error on line 2: unknown instruction: XYZZY"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM a AS 1x", ('dockerfile parse error on line 1: invalid name for build stage: "1x", '
         "name can't start with a number or contain symbols")),
        ("RUN x", "no build stage in current context"),
        ("FROM a\nCOPY x", ("dockerfile parse error on line 2: COPY requires at least two arguments, but only one was "
         "provided. Destination could not be determined")),
        ("FROM a\nCOPY --form=x a b", "dockerfile parse error on line 2: unknown flag: --form (did you mean from?)"),
        ("FROM a\nENV", "dockerfile parse error on line 2: ENV requires at least one argument"),
        ("FROM a\nENV a=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("FROM a\nENV =b", "dockerfile parse error on line 2: ENV names can not be blank"),
        ("FROM a\nSHELL sh", "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form"),
        ("FROM a\nHEALTHCHECK FOO x", 'dockerfile parse error on line 2: Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x",
         'dockerfile parse error on line 2: Interval "interval" cannot be less than 1ms'),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", "dockerfile parse error on line 2: --retries cannot be negative (-1)"),
        ("FROM a\nONBUILD ONBUILD RUN x",
         "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM x", "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nRUN --network=x y", 'dockerfile parse error on line 2: invalid network mode "x"'),
        ("FROM a\nRUN --mount=from=$x y", ("dockerfile parse error on line 2: 'from' doesn't support variable "
         "expansion, define alias stage instead")),
        ("FROM a\nMAINTAINER", "dockerfile parse error on line 2: MAINTAINER requires exactly one argument"),
        ('FROM a\nVOLUME [""]', "dockerfile parse error on line 2: VOLUME specified can not be an empty string"),
        ("FROM a\nCOPY --link=maybe a b",
         "dockerfile parse error on line 2: expecting boolean value for flag --link, not: maybe"),
        ("FROM a\nCOPY --link --link a b", "dockerfile parse error on line 2: duplicate flag specified: --link"),
        ("", "file with no instructions"),
    ],
)  # fmt: skip
def test_errors_read_as_dockers(text, message):
    with pytest.raises(DockerfileError) as caught:
        parse_stages(text)
    assert str(caught.value) == message


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("FROM RUN COPY ENV \\`\n\t#<-'\"$={}[],:/a0EO")), max_size=200))
def test_any_text_is_parsed_or_refused(text):
    try:
        parse_stages("FROM x\n" + text)
    except DockerfileError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_characters_are_parsed_or_refused(text):
    try:
        parse_stages(text)
    except DockerfileError:
        pass

"""INCLUDE: what it brings, where errors are, what is refused."""

import asyncio

import pytest

from barque.base.errors import NotFoundError
from barque.dockerfile import including, instructions as of
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.lint import Known, check
from barque.dockerfile.rules import Choice
from barque.dockerfile.scope import Scope
from barque.dockerfile.stages import Dockerfile, parse

HEAD = "# syntax=barque/dockerfile:1\n"


def read(text: str, files: dict[str, str] | None = None, **arguments: str) -> Dockerfile:
    async def bring(context: str, path: str) -> str:
        name = f"{context}:{path}" if context else path
        if name not in (files or {}):
            raise NotFoundError("no such file in the context")
        return (files or {})[name]

    return asyncio.run(including.parse(HEAD + text, "Dockerfile", Scope(arguments, {"TARGETARCH": "arm64"}), bring))


def told(text: str, files: dict[str, str] | None = None) -> str:
    with pytest.raises(DockerfileError) as caught:
        read(text, files)
    return str(caught.value)


def codes(made: Dockerfile) -> list[list[str]]:
    return [[one.code for one in stage.instructions] for stage in made.stages]


def test_what_is_included_stands_where_it_was_asked_for():
    files = {
        "args": "ARG BASE=busybox\n", "stages": "FROM $BASE AS one\nINCLUDE /d/./run\n", "d/run": "RUN <<E\nINCLUDE no\nE\nENV A=1\n",
        "arm64.txt": "USER 5\n", "v2": "USER 6\n",
    }  # fmt: skip
    made = read("INCLUDE args\nARG V\ninclude stages\nFROM one\nRUN a\nINCLUDE [\"$TARGETARCH.txt\"]\nINCLUDE ${V}\n", files, V="v2")
    assert codes(made) == [["RUN <<E", "ENV A=1"], ["RUN a", "USER 5", "USER 6"]]
    assert [arg.args for arg in made.global_args] == [(("BASE", "busybox"),), (("V", None),)]
    run = made.stages[0].instructions[0]
    assert isinstance(run, of.Run)
    assert run.files[0].data == "INCLUDE no\n"
    assert run.file is not None
    assert (run.file.name, run.line, run.file.asked_at) == ("d/run", 1, "stages:2")
    assert made.stages[1].instructions[0].file is None
    assert [file.name for file, _ in made.source.included] == ["args", "stages", "d/run", "arm64.txt", "v2"]


def test_a_fragment_of_a_named_context_includes_from_there():
    files = {"lib:a/x": "INCLUDE b\nINCLUDE --from=other b\n", "lib:b": "USER lib\n", "other:b": "USER other\n", "b": "USER none\n"}
    assert codes(read("FROM scratch\nINCLUDE --from=lib a/x\n", files)) == [["USER lib", "USER other"]]


def test_each_text_has_its_own_escape_character():
    files = {"tick": "# escape=`\nRUN a `\n  b\nINCLUDE plain\n", "plain": "RUN c \\\n  d\n"}
    made = read("FROM scratch\nINCLUDE tick\nRUN e \\\n f\n", files)
    assert codes(made) == [["RUN a   b", "RUN c   d", "RUN e  f"]]
    assert [of.escape_of(one, made.source.escape) for one in made.stages[0].instructions] == ["`", "\\", "\\"]


def test_errors_name_the_file_and_the_line():
    files = {"a": "\nRUN x\nNOSUCH y\n", "b": "RUN <<E\nx\n", "c": "RUN x\n\nINCLUDE absent\n", "d": "# comments alone\n", "e": "INCLUDE a\n"}
    assert told("FROM scratch\nINCLUDE a", files) == (
        "dockerfile parse error on line 3 of a (included at Dockerfile:3): unknown instruction: NOSUCH"
    )
    assert "line 3 of a (included at e:1)" in told("FROM scratch\nINCLUDE e", files)
    assert told("FROM scratch\nINCLUDE b", files) == "b:1 (included at Dockerfile:3): unterminated heredoc"
    assert told("FROM scratch\nINCLUDE c", files) == (
        "dockerfile parse error on line 3 of c (included at Dockerfile:3): INCLUDE absent: no such file in the context"
    )
    assert told("FROM scratch\nINCLUDE d", files) == "d:1 (included at Dockerfile:3): file with no instructions"
    assert told("INCLUDE e", {"e": "RUN x\n"}) == "e:1 (included at Dockerfile:2): no build stage in current context"


@pytest.mark.parametrize(("text", "message"), [
    ("INCLUDE", "requires exactly one argument"),
    ("INCLUDE a b", "requires exactly one argument"),
    ("INCLUDE --form=x a", "unknown flag: --form"),
    ("INCLUDE --from= a", "names no context"),
    ("INCLUDE $NONE", "the path of INCLUDE ($NONE) is empty"),
    ("INCLUDE ../a", "leads out of the context"),
    ("INCLUDE /b/../../a", "leads out of the context"),
    ("INCLUDE .", "names a folder"),
    ("ONBUILD INCLUDE a", "INCLUDE isn't allowed as an ONBUILD trigger"),
])  # fmt: skip
def test_what_cannot_be_included_is_refused_with_its_line(text: str, message: str):
    said = told(f"FROM scratch\n{text}\n", {"a": "RUN x\n"})
    assert said.startswith("dockerfile parse error on line 3: ")
    assert message in said


@pytest.mark.parametrize("text", ["# syntax=docker/dockerfile:1\nRUN x\n", "# check=skip=all\nRUN x\n"])
def test_what_counts_in_the_dockerfile_alone_is_refused_elsewhere(text: str):
    assert "line 1 of a (included at Dockerfile:3): # " in told("FROM scratch\nINCLUDE a", {"a": text})
    assert codes(read("FROM scratch\nINCLUDE a\n", {"a": HEAD + "RUN x\n"})) == [["RUN x"]]


def test_circles_depth_and_number_are_limited():
    files = {"a": "INCLUDE b\n", "b": "USER x\nINCLUDE ./a\n"}
    assert "line 2 of b (included at a:1): INCLUDE a leads back to itself: a -> b -> a" in told("FROM scratch\nINCLUDE a", files)
    deep = {str(n): f"INCLUDE {n + 1}\n" for n in range(20)}
    assert "line 1 of 15 (included at 14:1): INCLUDE 16 is nested deeper than 16" in told("FROM scratch\nINCLUDE 0", deep)
    # Each takes the next one twice: few texts, very many lines.
    wide = {str(n): f"INCLUDE {n + 1}\n" * 2 for n in range(14)} | {"14": "USER x\n"}
    assert "one more than the 1000" in told("FROM scratch\nINCLUDE 0", wide)


def test_all_that_is_included_has_a_largest_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(including, "LARGEST", 10)
    assert "all that is included is larger" in told("FROM scratch\nINCLUDE a\nINCLUDE a", {"a": "USER x\n"})


def test_without_the_syntax_line_there_is_no_such_instruction():
    with pytest.raises(DockerfileError, match="unknown instruction: INCLUDE"):
        asyncio.run(including.parse("FROM scratch\nINCLUDE a\n", "Dockerfile", Scope({}), lambda *_: pytest.fail("read")))
    with pytest.raises(DockerfileError, match=r"unknown instruction: INCLUD$"):
        parse("FROM scratch\nINCLUD a\n")


def test_checks_find_things_in_fragments_and_say_where():
    made = read("FROM scratch\nINCLUDE a\n", {"a": "\nWORKDIR x\nRUN a \\\n\nb\n"})
    found = check(made, Choice(), Known())
    assert [str(one) for one in found] == [
        "WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes (line 2 of a)",
        "NoEmptyContinuation: Empty continuation line (line 5 of a)",
    ]

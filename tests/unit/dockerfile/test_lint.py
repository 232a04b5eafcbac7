"""The 22 build checks, each by a Dockerfile that breaks it, and what turns them off."""

import pytest
from hypothesis import given, settings, strategies as st

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.lint import Known, check, complaint
from barque.dockerfile.rules import RULES, Choice, choice, choice_of
from barque.dockerfile.stages import parse

_PLATFORM = {"TARGETPLATFORM": "linux/amd64", "BUILDPLATFORM": "linux/amd64", "TARGETARCH": "amd64"}
_KNOWN = Known(platform=_PLATFORM, base_env=lambda number: {"PATH": "/bin"})


def found(text: str, known: Known = _KNOWN, wanted: Choice | None = None) -> list[str]:
    return [str(one) for one in check(parse(text), choice_of(text, "") if wanted is None else wanted, known)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a AS Build", "StageNameCasing: Stage name 'Build' should be lowercase (line 1)"),
        ("FROM a as b", "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"),
        ("FROM a\nRUN x \\\n\n  y", "NoEmptyContinuation: Empty continuation line (line 4)"),
        ("FROM a\nRUN x\nrun y", ("ConsistentInstructionCasing: Command 'run' should match the case of the command "
         "majority (uppercase) (line 3)")),
        ("FROM a AS x\nFROM b AS x",
         'DuplicateStageName: Duplicate stage name "x", stage names should be unique (line 2)'),
        ("FROM a AS scratch",
         'ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 1)'),
        ("FROM a\nCMD run it", ("JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended "
         "behavior related to OS signals (line 2)")),
        ("FROM a\nMAINTAINER me",
         "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"),
        ("ARG VERSION=1\nFROM a:${VERSIN}",
         "UndefinedArgInFrom: FROM argument 'VERSIN' is not declared (did you mean VERSION?) (line 2)"),
        ("FROM a\nWORKDIR app", ('WorkdirRelativePath: Relative workdir "app" can have unexpected results if the '
         "base image changes (line 2)")),
        ("FROM a\nCOPY $foo .", "UndefinedVar: Usage of undefined variable '$foo' (line 2)"),
        ("FROM a\nENV DIR_BINARIES=/b\nCOPY x $DIR_BINARY", ("UndefinedVar: Usage of undefined variable '$DIR_BINARY' "
         "(line 3)")),
        ("FROM a\nENV PATH=$PAHT:/x",
         "UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 2)"),
        ("FROM a\nCMD [\"a\"]\nCMD [\"b\"]", ("MultipleInstructionsDisallowed: Multiple CMD instructions should not be "
         "used in the same stage because only the last one will be used (line 2)")),
        ("FROM a\nENV k v", ('LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" '
         "format (line 2)")),
        ("FROM --platform=$TARGETPLATFORM a", ("RedundantTargetPlatform: Setting platform to predefined "
         "$TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)")),
        ("FROM a\nARG AWS_SECRET_KEY", ('SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data '
         '(ARG "AWS_SECRET_KEY") (line 2)')),
        ("ARG TAG\nFROM a:${TAG}", ("InvalidDefaultArgInFrom: Default value for ARG a:${TAG} results in empty or "
         "invalid base image name (line 2)")),
        ("FROM --platform=linux/arm64 a AS b", ('FromPlatformFlagConstDisallowed: FROM --platform flag should not use '
         'constant value "linux/arm64" (line 1)')),
        ("FROM a\nEXPOSE 80/TCP",
         "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)"),
        ("FROM a\nEXPOSE 127.0.0.1:80:80", ("ExposeInvalidFormat: EXPOSE instruction should not define an IP address or "
         "host-port mapping, found '127.0.0.1:80:80' (line 2)")),
        ("# check=experimental=all\nFROM a\n# something else\nARG X",
         "InvalidDefinitionDescription: Comment for ARG should follow the format: `# X <description>` (line 4)"),
    ],
)  # fmt: skip
def test_a_check_finds_what_it_is_for(text, message):
    known = Known(platform=_PLATFORM, base_env=_KNOWN.base_env, valid_image=lambda name: not name.endswith(":"))
    assert message in found(text, known)


def test_files_that_the_ignore_file_names_are_told_when_they_are_copied():
    known = Known(ignored=["secret", "d/*"], base_env=_KNOWN.base_env)
    text = "FROM a\nCOPY secret /\nADD d/x /\nCOPY ok /\nCOPY --from=0 secret /\nCOPY . /\n"
    assert found(text, known) == [
        'CopyIgnoredFile: Attempting to Copy file "secret" that is excluded by .dockerignore (line 2)',
        'CopyIgnoredFile: Attempting to Add file "d/x" that is excluded by .dockerignore (line 3)',
    ]
    assert found(text, Known(ignored=["*", "!ok"], base_env=_KNOWN.base_env)) == []


def test_a_base_image_of_another_platform_is_told():
    known = Known(base_env=_KNOWN.base_env, base_platform=lambda number: ("a", "linux/amd64", "linux/arm64"))
    assert found("FROM a", known) == [
        ('InvalidBaseImagePlatform: Base image a was pulled with platform "linux/arm64", expected "linux/amd64" for '
        "current build (line 1)")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "FROM a AS b\nWORKDIR /x\nWORKDIR y\nENV A=1\nCOPY $A $PATH /\nCMD [\"x\"]\nEXPOSE 80/tcp",
        "FROM --platform=$BUILDPLATFORM a AS b",
        "FROM --platform=linux/arm64 a AS build-arm64",
        "FROM a\nARG X\nRUN echo $Y\nCOPY $X /",
        "FROM a\nENV PUBLIC_KEY=1 KEY_FILE=2 TOKEN_VERSION=3 MONKEY=4",
        "FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD run it",
        "from a as b\nrun x",
        "ARG V=1\nFROM a:$V",
        "FROM a\nHEALTHCHECK CMD x\n",
        "FROM a\n# X is described\nARG X",
    ],
)
def test_what_is_right_is_not_told(text):
    assert found(text) == []


def test_variables_are_not_checked_where_the_base_image_is_not_known():
    assert found("FROM a\nCOPY $foo .\n", Known()) == []
    assert found("FROM scratch\nCOPY $foo /\n", Known()) == [
        "UndefinedVar: Usage of undefined variable '$foo' (line 2)"
    ]


def test_checks_are_skipped_by_a_directive_an_argument_or_a_comment():
    text = "FROM a\nMAINTAINER me\nENV k v\n"
    assert len(found(text)) == 2
    assert len(found("# check=skip=MaintainerDeprecated\n" + text)) == 1
    assert found("# check=skip=all\n" + text) == []
    assert found(text, wanted=choice_of(text, "skip=LegacyKeyValueFormat, MaintainerDeprecated")) == []
    beside = "FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER me\nENV k v\n"
    assert [one.split(":")[0] for one in found(beside)] == ["LegacyKeyValueFormat"]


def test_findings_can_be_errors():
    wanted = choice("error=true;skip=StageNameCasing")
    assert wanted.as_error
    assert complaint(check(parse("FROM a\nMAINTAINER me\n"), wanted)) == (
        "lint violation found for rules: MaintainerDeprecated"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [("skip", 'invalid check option "skip"'), ("foo=1", 'invalid check option "foo"'),
     ("error=maybe", 'failed to parse check option "error=maybe": strconv.ParseBool: parsing "maybe": invalid syntax')],
)  # fmt: skip
def test_a_malformed_choice_is_refused(text, message):
    with pytest.raises(DockerfileError) as caught:
        choice(text)
    assert str(caught.value) == message


def test_only_the_stages_that_are_built_are_looked_into():
    text = "FROM a AS x\nENV k v\nFROM a\n"
    assert found(text, Known(stages=frozenset({1}), base_env=_KNOWN.base_env)) == []


def test_there_are_22_rules():
    assert len(RULES) == 22


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("FROM ARG ENV COPY EXPOSE \\\n\t#$={}:/a0")), max_size=160))
def test_any_dockerfile_that_can_be_parsed_can_be_checked(text):
    try:
        parsed = parse("FROM a\n" + text)
    except DockerfileError:
        return
    check(parsed, Choice(experimental_all=True), _KNOWN)

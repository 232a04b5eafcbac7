"""The build checks: their names, what they are about, and which of them a Dockerfile wants."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from barque.dockerfile.directives import DirectiveReader, directive
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.line import Fragment
from barque.dockerfile.text import SPACE, quoted

_PLACE = "https://docs.docker.com/go/dockerfile/rule/"
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Rule(NamedTuple):
    """One check; an experimental one runs only where it is asked for."""

    name: str
    description: str
    page: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """Return where it is explained, empty where it is not."""
        return f"{_PLACE}{self.page}/" if self.page else ""


RULES = {rule.name: rule for rule in (
    Rule("StageNameCasing", "Stage names should be lowercase", "stage-name-casing"),
    Rule("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword", "from-as-casing"),
    Rule("NoEmptyContinuation", "Empty continuation lines will become errors in a future release",
         "no-empty-continuation"),
    Rule("ConsistentInstructionCasing",
         "All commands within the Dockerfile should use the same casing (either upper or lower)",
         "consistent-instruction-casing"),
    Rule("DuplicateStageName", "Stage names should be unique", "duplicate-stage-name"),
    Rule("ReservedStageName", "Reserved words should not be used as stage names", "reserved-stage-name"),
    Rule("JSONArgsRecommended",
         "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
         "json-args-recommended"),
    Rule("MaintainerDeprecated",
         "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
         "maintainer-deprecated"),
    Rule("UndefinedArgInFrom", "FROM command must use declared ARGs", "undefined-arg-in-from"),
    Rule("WorkdirRelativePath",
         "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
         "base image changes", "workdir-relative-path"),
    Rule("UndefinedVar", "Variables should be defined before their use", "undefined-var"),
    Rule("MultipleInstructionsDisallowed",
         "Multiple instructions of the same type should not be used in the same stage",
         "multiple-instructions-disallowed"),
    Rule("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used",
         "legacy-key-value-format"),
    Rule("InvalidBaseImagePlatform", "Base image platform does not match expected target platform", ""),
    Rule("RedundantTargetPlatform",
         "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
         "redundant-target-platform"),
    Rule("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands",
         "secrets-used-in-arg-or-env"),
    Rule("InvalidDefaultArgInFrom", "Default value for global ARG results in an empty or invalid base image name",
         "invalid-default-arg-in-from"),
    Rule("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value",
         "from-platform-flag-const-disallowed"),
    Rule("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore", "copy-ignored-file"),
    Rule("InvalidDefinitionDescription",
         "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this "
         "is not intended to be a description comment, add an empty line or comment between the instruction and the "
         "comment.", "invalid-definition-description", experimental=True),
    Rule("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase", "expose-proto-casing"),
    Rule("ExposeInvalidFormat",
         "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
         "future release", "expose-invalid-format"),
)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """Which checks run, and whether what they find is an error."""

    skipped: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    as_error: bool = field(default=False)

    def wants(self, rule: Rule) -> bool:
        """Tell whether a check runs."""
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not self.skip_all and rule.name not in self.skipped

    def merged(self, other: "Choice") -> "Choice":
        """Return the choice with another's added; whether findings are errors stays as it is."""
        return replace(
            self, skipped=self.skipped | other.skipped, skip_all=self.skip_all or other.skip_all,
            experimental=self.experimental | other.experimental,
            experimental_all=self.experimental_all or other.experimental_all,
        )  # fmt: skip

    def beside(self, comments: Iterable[str]) -> "Choice":
        """Return the choice for an instruction with these comments directly above."""
        for comment in comments:
            found = DirectiveReader("").read(comment)
            if found is None or found.name != "check":
                continue
            try:
                return self.merged(choice(found.value.partition(" ")[0]))
            except DockerfileError:
                return self
        return self


def choice(text: str) -> Choice:
    """Return the choice that `skip=A,B;error=true;experimental=all` means.

    Raises:
        DockerfileError: it is malformed.
    """
    made = Choice()
    text = text.strip(SPACE)
    for part in text.split(";", 2) if text else ():
        key, equals, value = part.partition("=")
        key, value = key.strip(SPACE), value.strip(SPACE)
        if not equals:
            raise DockerfileError(f"invalid check option {quoted(part)}")
        names = frozenset(name.strip(SPACE) for name in value.split(","))
        if key == "skip":
            made = replace(made, skip_all=True) if value == "all" else replace(made, skipped=names)
        elif key == "experimental":
            made = replace(made, experimental_all=True) if value == "all" else replace(made, experimental=names)
        elif key == "error":
            if value not in _TRUE and value not in _FALSE:
                raise DockerfileError(
                    f"failed to parse check option {quoted(part)}: strconv.ParseBool: parsing {quoted(value)}: "
                    "invalid syntax"
                )
            made = replace(made, as_error=value in _TRUE)
        else:
            raise DockerfileError(f"invalid check option {quoted(key)}")
    return made


def choice_of(text: str, given: str) -> Choice:
    """Return the choice of a Dockerfile's `# check=` line, or of the build argument that goes before it.

    Raises:
        DockerfileError: it is malformed.
    """
    if given:
        return choice(given)
    found = directive(text, "check")
    return choice(found.value) if found is not None else Choice()


class Finding(NamedTuple):
    """What a check found: the rule's name, words, explanation, and the lines (1-based, 0: none)."""

    rule: str
    message: str
    line: int
    end: int
    file: Fragment | None = None

    @property
    def description(self) -> str:
        """Return what the rule is about."""
        return RULES[self.rule].description

    @property
    def url(self) -> str:
        """Return where the rule is explained."""
        return RULES[self.rule].url

    def __str__(self) -> str:
        of_file = f" of {self.file.name}" if self.file is not None else ""
        place = f" (line {self.line}{of_file})" if self.line > 0 else ""
        return f"{self.rule}: {self.message}{place}"

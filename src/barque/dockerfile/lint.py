"""Checking a Dockerfile: what Docker's build checks find, in its words."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from barque.base.errors import InvalidInputError
from barque.dockerfile import instructions as of
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.line import Fragment, Line
from barque.dockerfile.patterns import Matcher
from barque.dockerfile.rules import RULES, Choice, Finding
from barque.dockerfile.scope import NO_VARIABLES, PROXIES
from barque.dockerfile.stages import Dockerfile
from barque.dockerfile.text import clean, nearest, quoted
from barque.dockerfile.words import Expansion, Rules, expand

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_WHOLE_CONTEXT = ("*", "**", "**/*")


@dataclass(slots=True)
class Known:
    """What a check knows besides the text.

    `arguments` were given from outside; `platform` are the predefined arguments. `stages` are the numbers
    of those that are built, None for all. `base_env` gives the variables of the image that a stage starts
    from, None where it is not known: uses of variables are not checked there. `ignored` are the patterns
    of the ignore file.
    """

    arguments: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)
    stages: frozenset[int] | None = None
    base_env: Callable[[int], Mapping[str, str] | None] = lambda number: None
    base_platform: Callable[[int], tuple[str, str, str] | None] = lambda number: None
    """Gives name, expected and actual platform of the image that a stage starts from, where they differ."""
    ignored: Sequence[str] = ()
    valid_image: Callable[[str], bool] = lambda name: True


def check(parsed: Dockerfile, choice: Choice, known: Known | None = None) -> list[Finding]:
    """Return what the checks find, in the order of the lines.

    Raises:
        DockerfileError: the ignore file is malformed.
    """
    work = _Check(parsed, choice, known or Known())
    work.run()
    return sorted(work.found, key=lambda finding: finding.line)


def complaint(found: Iterable[Finding]) -> str:
    """Return the error that findings are where the Dockerfile wants them to be errors."""
    names = dict.fromkeys(finding.rule for finding in found)
    return f"lint violation found for rules: {', '.join(names)}"


class _Check:
    def __init__(self, parsed: Dockerfile, choice: Choice, known: Known) -> None:
        self._parsed = parsed
        self._choice = choice
        self._known = known
        self._escape = parsed.source.escape
        self._matcher = Matcher(known.ignored) if known.ignored else None
        # What is being checked stands in it.
        self._file: Fragment | None = None
        self.found: list[Finding] = []

    def run(self) -> None:
        for file, warnings in [(None, self._parsed.source.warnings), *self._parsed.source.included]:
            self._file = file
            for line, _ in warnings:
                self._add("NoEmptyContinuation", "Empty continuation line", line, line)
        for source in self._parsed.source.lines:
            self._file = source.file
            self._check_line(source)
        self._check_names()
        self._check_casing()
        self._check_defaults()
        given, keys = self._globals()
        states: dict[str, _Variables] = {}
        for number, stage in enumerate(self._parsed.stages):
            self._file = stage.file
            self._check_from(stage, given, keys)
            variables = self._begin(number, stage, given, states)
            if self._known.stages is None or number in self._known.stages:
                self._check_stage(number, stage, variables)
            if stage.name:
                states[stage.name] = variables

    def _add(self, rule: str, message: str, line: int, end: int, comments: Sequence[str] = ()) -> None:
        if self._choice.beside(comments).wants(RULES[rule]):
            self.found.append(Finding(rule, message, line, end, self._file))

    # What single lines show.

    def _check_line(self, line: Line) -> None:
        name = line.name.lower()
        place = (line.start, line.end, line.comments)
        if name == "maintainer":
            self._add("MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", *place)
        elif name == "from" and len(line.args) == 3:
            stage = line.args[2]
            if stage != stage.lower():
                self._add("StageNameCasing", f"Stage name '{stage}' should be lowercase", *place)
            if _casings_differ(line.name, line.args[1]):
                self._add("FromAsCasing", f"'{line.args[1]}' and '{line.name}' keywords' casing do not match", *place)
            self._check_description("FROM", [stage.lower()], line)
        elif name == "arg":
            self._check_description("ARG", [word.partition("=")[0] for word in line.args], line)

    def _check_description(self, name: str, keys: list[str], line: Line) -> None:
        if not line.comments or not keys or line.comments[-1].split(" ")[0] in keys:
            return
        shown = keys[0] if len(keys) == 1 else "<arg_key>"
        message = f"Comment for {name} should follow the format: `# {shown} <description>`"
        self._add("InvalidDefinitionDescription", message, line.start, line.end, line.comments)

    # What the whole shows.

    def _check_names(self) -> None:
        seen: set[str] = set()
        for stage in self._parsed.stages:
            self._file = stage.file
            if stage.name in _RESERVED:
                message = f"Stage name should not use the same name as reserved stage {quoted(stage.name)}"
                self._add("ReservedStageName", message, stage.line, stage.end)
            if stage.name and stage.name in seen:
                message = f"Duplicate stage name {quoted(stage.name)}, stage names should be unique"
                self._add("DuplicateStageName", message, stage.line, stage.end)
            seen.add(stage.name)

    def _check_casing(self) -> None:
        names = [(stage.command, stage.line, stage.end, stage.file) for stage in self._parsed.stages]
        names += [(i.name, i.line, i.end, i.file) for stage in self._parsed.stages for i in stage.instructions if i.line]
        lower = sum(name == name.lower() for name, *_ in names)
        upper = sum(name == name.upper() for name, *_ in names)
        is_lower = lower > upper
        for name, line, end, file in names:
            self._file = file
            if name != (name.lower() if is_lower else name.upper()):
                wanted = "lowercase" if is_lower else "uppercase"
                message = f"Command '{name}' should match the case of the command majority ({wanted})"
                self._add("ConsistentInstructionCasing", message, line, end)

    def _globals(self, *, defaults_only: bool = False) -> tuple[dict[str, str], list[str]]:
        """Return the values that FROM may use, and the names that could be meant."""
        values = dict(self._known.platform)
        keys = list(values)
        for arg in self._parsed.global_args:
            self._file = arg.file
            for key, default in arg.args:
                keys.append(key)
                value = None if defaults_only else self._known.arguments.get(key)
                if value is None and default is not None:
                    value = self._expanded(default, values).text
                if value is not None:
                    values[key] = value
        for name in PROXIES:
            if name in self._known.arguments:
                values[name] = self._known.arguments[name]
        return values, keys

    def _expanded(self, word: str, values: Mapping[str, str]) -> Expansion:
        try:
            return expand(word, values, Rules(self._file.escape if self._file is not None else self._escape))
        except DockerfileError:
            # The build itself fails with it; a check has nothing to add.
            return Expansion(word, [word], frozenset(), frozenset())

    def _check_defaults(self) -> None:
        values, _ = self._globals(defaults_only=True)
        for stage in self._parsed.stages:
            self._file = stage.file
            name = self._expanded(stage.base, values).text
            if not name or not self._known.valid_image(name):
                message = f"Default value for ARG {stage.base} results in empty or invalid base image name"
                self._add("InvalidDefaultArgInFrom", message, stage.line, stage.end)

    def _check_from(self, stage: of.Stage, values: Mapping[str, str], keys: list[str]) -> None:
        place = (stage.line, stage.end, stage.comments)
        for word in (stage.base, stage.platform):
            for name in sorted(self._expanded(word, values).missing - set(keys)):
                message = f"FROM argument '{name}' is not declared" + _meant(name, keys, "")
                self._add("UndefinedArgInFrom", message, *place)
        if not stage.platform:
            return
        found = self._expanded(stage.platform, values)
        if found.used == {"TARGETPLATFORM"} and not found.missing and found.text == values.get("TARGETPLATFORM"):
            message = (
                f"Setting platform to predefined {stage.platform} in FROM is redundant as this is the default behavior"
            )
            self._add("RedundantTargetPlatform", message, *place)
        if not found.used and not found.missing and not _names_platform(stage.name, found.text):
            message = f"FROM --platform flag should not use constant value {quoted(found.text)}"
            self._add("FromPlatformFlagConstDisallowed", message, *place)

    # What a stage shows.

    def _begin(
        self, number: int, stage: of.Stage, values: Mapping[str, str], states: "Mapping[str, _Variables]"
    ) -> "_Variables":
        base = self._expanded(stage.base, values).text
        parent = states.get(base.lower())
        if parent is not None:
            return _Variables(dict(parent.env), known=parent.known, shell=parent.shell)
        env = {} if base == "scratch" else self._known.base_env(number)
        return _Variables(dict(env or {}), known=env is not None)

    def _check_stage(self, number: int, stage: of.Stage, variables: "_Variables") -> None:
        wrong = self._known.base_platform(number)
        if wrong is not None:
            name, expected, actual = wrong
            message = (
                f"Base image {name} was pulled with platform {quoted(actual)}, expected {quoted(expected)} for current build"
            )
            self._add("InvalidBaseImagePlatform", message, stage.line, stage.end, stage.comments)
        once: dict[str, of.Instruction] = {}
        for made in stage.instructions:
            self._file = made.file
            if made.line:
                self._check_uses(made, variables)
                self._check_instruction(made, variables, once)
            _take(made, variables, self._known.arguments, self._escape)

    def _check_uses(self, made: of.Instruction, variables: "_Variables") -> None:
        """Find variables that nothing defined."""
        if not variables.known:
            return
        missing: dict[str, None] = {}
        values = variables.values()

        def note(word: str) -> str:
            found = self._expanded(word, values)
            missing.update(dict.fromkeys(sorted(found.missing)))
            return found.text

        try:
            made.expanded(note)
            if isinstance(made, of.Files):
                made.with_inline(note)
            if isinstance(made, of.Expose):
                for port in made.ports:
                    note(port)
        except InvalidInputError:
            return
        for name in missing:
            if name in variables.declared or name in NO_VARIABLES:
                continue
            message = f"Usage of undefined variable '${name}'" + _meant(name, list(values), "$")
            self._add("UndefinedVar", message, made.line, made.end, made.comments)

    def _check_instruction(
        self, made: of.Instruction, variables: "_Variables", once: dict[str, of.Instruction]
    ) -> None:
        place = (made.line, made.end, made.comments)
        if isinstance(made, of.Env | of.Label) and any(pair.legacy for pair in made.pairs):
            message = f'"{made.name} key=value" should be used instead of legacy "{made.name} key value" format'
            self._add("LegacyKeyValueFormat", message, *place)
        if isinstance(made, of.Env):
            self._check_secrets("ENV", [pair.key for pair in made.pairs], made)
        elif isinstance(made, of.Arg):
            self._check_secrets("ARG", [key for key, _ in made.args], made)
        elif isinstance(made, of.Workdir):
            if not variables.workdir and not made.path.startswith("/"):
                message = f"Relative workdir {quoted(made.path)} can have unexpected results if the base image changes"
                self._add("WorkdirRelativePath", message, *place)
            variables.workdir = True
        elif isinstance(made, of.Cmd | of.Entrypoint | of.Healthcheck):
            self._check_once(made, once)
            if isinstance(made, of.Cmd | of.Entrypoint) and made.shell and not variables.shell:
                message = (
                    f"JSON arguments recommended for {made.name} to prevent unintended behavior related to OS signals"
                )
                self._add("JSONArgsRecommended", message, *place)
        elif isinstance(made, of.Files):
            self._check_ignored(made)
        elif isinstance(made, of.Expose):
            self._check_ports(made, variables)

    def _check_once(self, made: of.Instruction, once: dict[str, of.Instruction]) -> None:
        key = type(made).__name__
        before = once.get(key)
        if before is not None:
            # The one before is told: it is the one that counts for nothing.
            message = (
                f"Multiple {made.name} instructions should not be used in the same stage because only the last one "
                "will be used"
            )
            self._file = before.file
            self._add("MultipleInstructionsDisallowed", message, before.line, before.end, made.comments)
            self._file = made.file
        once[key] = made

    def _check_secrets(self, name: str, keys: Iterable[str], made: of.Instruction) -> None:
        for key in keys:
            if _SECRET.search(key) and not _HARMLESS.search(key):
                message = f"Do not use ARG or ENV instructions for sensitive data ({name} {quoted(key)})"
                self._add("SecretsUsedInArgOrEnv", message, made.line, made.end, made.comments)

    def _check_ignored(self, made: of.Files) -> None:
        if self._matcher is None or self._matcher.brings_back or (isinstance(made, of.Copy) and made.source):
            return
        verb = "Add" if isinstance(made, of.Add) else "Copy"
        for source in made.sources:
            path = clean(source)
            if path in (".", "/") and not any(pattern in _WHOLE_CONTEXT for pattern in self._known.ignored):
                continue
            if not source.startswith(("http://", "https://")) and self._matcher.matches(path):
                message = f"Attempting to {verb} file {quoted(path)} that is excluded by .dockerignore"
                self._add("CopyIgnoredFile", message, made.line, made.end, made.comments)

    def _check_ports(self, made: of.Expose, variables: "_Variables") -> None:
        for port in made.ports:
            for word in self._expanded(port, variables.values()).words:
                _, slash, protocol = word.partition("/")
                if slash and protocol != protocol.lower():
                    message = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
                    self._add("ExposeProtoCasing", message, made.line, made.end, made.comments)
                if ":" in word:
                    message = (
                        "EXPOSE instruction should not define an IP address or host-port mapping, "
                        f"found '{word}'"
                    )
                    self._add("ExposeInvalidFormat", message, made.line, made.end, made.comments)


class _Variables:
    """What a stage's instructions can use; `known` is False where the base image's variables are not."""

    def __init__(self, env: dict[str, str], *, known: bool, shell: bool = False) -> None:
        self.env = env
        self.known = known
        self.shell = shell
        self.workdir = False
        self.arguments: dict[str, str] = {}
        self.declared: set[str] = set()

    def values(self) -> dict[str, str]:
        return {**self.arguments, **self.env}


def _take(made: of.Instruction, variables: _Variables, given: Mapping[str, str], escape: str) -> None:
    """Let an instruction define what it does."""

    def value_of(word: str) -> str:
        try:
            return expand(word, variables.values(), Rules(of.escape_of(made, escape))).text
        except DockerfileError:
            return word

    if isinstance(made, of.Env):
        variables.env |= {value_of(pair.key): value_of(pair.value) for pair in made.pairs}
    elif isinstance(made, of.Shell):
        variables.shell = True
    elif isinstance(made, of.Arg):
        for key, default in made.args:
            variables.declared.add(key)
            value = given.get(key, None if default is None else value_of(default))
            if value is not None:
                variables.arguments[key] = value


def _casings_differ(name: str, keyword: str) -> bool:
    if name == name.lower():
        return keyword != keyword.lower()
    return name == name.upper() and keyword != keyword.upper()


def _names_platform(stage: str, platform: str) -> bool:
    system, _, rest = platform.partition("/")
    architecture = rest.partition("/")[0]
    return bool(stage) and any(part and part in stage for part in (system, architecture))


def _meant(name: str, options: Iterable[str], prefix: str) -> str:
    found = nearest(name, options)
    return f" (did you mean {prefix}{found}?)" if found else ""

"""Go templates as `--format` takes them: parsed into nodes, executed over JSON values and row objects."""

from __future__ import annotations

from barque.base.go_functions import FUNCTIONS, go_print, items_of, truth
from barque.base.go_lexer import TemplateError, Token, split
from barque.base.record import Record

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any


class Command(Record):
    """A function or value with its arguments."""

    words: list[Any]


class Pipeline(Record):
    """Commands joined by |, with variables that take the result."""

    variables: list[str]
    declares: bool
    commands: list[Command]


class Chain(Record):
    """Fields looked up on a value: `.A.B`, `$x.A`, `(pipeline).A`."""

    start: Any
    fields: list[str]
    text: str


class Node(Record):
    """A node of a template: text, action, if, with, range, break or continue."""

    kind: str
    value: Any
    body: list[Node]
    otherwise: list[Node]


class _StopError(Exception):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Template:
    """A parsed template.

    Raises:
        TemplateError: the source is not a template.
    """

    def __init__(self, source: str) -> None:
        self._parts = split(source)
        self._position = 0
        self.nodes, end = self._block(top=True)
        if end:
            raise TemplateError(f"template: :1: unexpected {{{{{end}}}}}")

    def _block(self, *, top: bool = False) -> tuple[list[Node], str]:
        nodes: list[Node] = []
        while self._position < len(self._parts):
            part = self._parts[self._position]
            self._position += 1
            if isinstance(part, str):
                if part:
                    nodes.append(Node("text", part, [], []))
                continue
            word = part_word(part)
            if word == "end" or word == "else":
                if word == "else":
                    self._position -= 1
                return nodes, word
            nodes.append(self._action(word, part))
        if not top:
            raise TemplateError("template: :1: unexpected EOF")
        return nodes, ""

    def _action(self, word: str, part: list[Token]) -> Node:
        if word in ("if", "with", "range"):
            return self._branch(word, _Parser(_without(part)).pipeline())
        if word in ("break", "continue"):
            return Node(word, None, [], [])
        if word in ("define", "template", "block"):
            raise TemplateError(f"template: :1: {{{{{word}}}}} is not supported")
        return Node("action", _Parser(part).pipeline(), [], [])

    def _branch(self, kind: str, pipeline: Pipeline) -> Node:
        body, end = self._block()
        otherwise: list[Node] = []
        if end == "else":
            part = self._parts[self._position]
            self._position += 1
            rest = _without(part) if isinstance(part, list) else []
            if rest:
                word = part_word(rest)
                if word not in ("if", "with"):
                    raise TemplateError("template: :1: unexpected word after else")
                otherwise = [self._branch(word, _Parser(_without(rest)).pipeline())]
            else:
                otherwise, end = self._block()
                if end != "end":
                    raise TemplateError("template: :1: unexpected {{else}}")
        return Node(kind, pipeline, body, otherwise)

    def render(self, data: Any) -> str:
        """Execute over a value and return the text.

        Raises:
            TemplateError: a field does not exist, or a function does not fit its arguments.
        """
        out: list[str] = []
        run = _Execution(data, out)
        run.block(self.nodes, data)
        return "".join(out)


def part_word(part: list[Token]) -> str:
    """Return the first word of an action, empty where it begins otherwise."""
    for token in part:
        if token.kind != "space":
            return str(token.value) if token.kind == "word" else ""
    return ""


def _without(part: list[Token]) -> list[Token]:
    seen = False
    rest = []
    for token in part:
        if not seen and token.kind == "word":
            seen = True
            continue
        rest.append(token)
    return rest if any(token.kind != "space" for token in rest) else []


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0

    def _skip(self) -> None:
        while self.position < len(self.tokens) and self.tokens[self.position].kind == "space":
            self.position += 1

    def _peek(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def pipeline(self, closing: str = "") -> Pipeline:
        variables, declares = self._variables()
        commands: list[Command] = []
        while True:
            commands.append(self._command())
            token = self._peek()
            if token is not None and token.kind == "|":
                self.position += 1
                continue
            if closing and (token is None or token.kind != closing):
                raise TemplateError("template: :1: unclosed left paren")
            if not closing and token is not None:
                raise TemplateError(f"template: :1: unexpected {str(token.value)!r} in command")
            self.position += 1
            return Pipeline(variables, declares, commands)

    def _variables(self) -> tuple[list[str], bool]:
        start = self.position
        names: list[str] = []
        while True:
            self._skip()
            token = self._peek()
            if token is None or token.kind != "variable":
                break
            names.append(token.value)
            self.position += 1
            self._skip()
            token = self._peek()
            if token is not None and token.kind == ",":
                self.position += 1
                continue
            if token is not None and token.kind in (":=", "="):
                self.position += 1
                return names, token.kind == ":="
            break
        self.position = start
        return [], False

    def _command(self) -> Command:
        words: list[Any] = []
        while True:
            self._skip()
            token = self._peek()
            if token is None or token.kind in ("|", ")"):
                if not words:
                    raise TemplateError("template: :1: missing value for command")
                return Command(words)
            words.append(self._operand(token))

    def _operand(self, token: Token) -> Any:
        self.position += 1
        if token.kind in ("string", "number"):
            return token
        if token.kind == "word":
            if token.value in ("true", "false", "nil"):
                return Token("constant", {"true": True, "false": False, "nil": None}[token.value])
            if token.value not in FUNCTIONS and token.value not in ("and", "or"):
                raise TemplateError(f'template: :1: function "{token.value}" not defined')
            return token
        if token.kind == "field":
            return self._chain(None, [token.value] if token.value else [], "." + token.value)
        if token.kind == "variable":
            return self._chain(token.value, [], token.value)
        if token.kind == "(":
            return self._chain(self.pipeline(")"), [], "")
        raise TemplateError(f"template: :1: unexpected {str(token.value)!r} in operand")

    def _chain(self, start: Any, fields: list[str], text: str) -> Chain:
        while (token := self._peek()) is not None and token.kind == "field" and token.value:
            fields.append(token.value)
            text += "." + token.value
            self.position += 1
        return Chain(start, fields, text)


class _Execution:
    def __init__(self, data: Any, out: list[str]) -> None:
        self.out = out
        self.variables: dict[str, Any] = {"$": data}

    def block(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            if node.kind == "text":
                self.out.append(node.value)
            elif node.kind == "action":
                value = self.pipeline(node.value, dot)
                if not node.value.variables:
                    self.out.append(go_print(value))
            elif node.kind == "range":
                self._range(node, dot)
            elif node.kind in ("break", "continue"):
                raise _StopError(node.kind)
            else:
                self._branch(node, dot)

    def _branch(self, node: Node, dot: Any) -> None:
        saved = dict(self.variables)
        value = self.pipeline(node.value, dot)
        if truth(value):
            self.block(node.body, value if node.kind == "with" else dot)
        else:
            self.block(node.otherwise, dot)
        self._restore(saved)

    def _restore(self, saved: dict[str, Any]) -> None:
        # What an inner block declared ends with it; what it assigned to an outer variable stays.
        for name in list(self.variables):
            if name not in saved:
                del self.variables[name]

    def _range(self, node: Node, dot: Any) -> None:
        pipeline: Pipeline = node.value
        saved = dict(self.variables)
        pairs = items_of(self.pipeline(Pipeline([], False, pipeline.commands), dot))
        if not pairs:
            self.block(node.otherwise, dot)
        for key, value in pairs:
            if len(pipeline.variables) == 1:
                self.variables[pipeline.variables[0]] = value
            elif len(pipeline.variables) == 2:
                self.variables[pipeline.variables[0]] = key
                self.variables[pipeline.variables[1]] = value
            try:
                self.block(node.body, value)
            except _StopError as stop:
                if stop.kind == "break":
                    break
        self._restore(saved)

    def pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = None
        for number, command in enumerate(pipeline.commands):
            value = self._command(command, dot, [value] if number else [])
        for name in pipeline.variables:
            self.variables[name] = value
        return value

    def _command(self, command: Command, dot: Any, last: list[Any]) -> Any:
        first = command.words[0]
        if isinstance(first, Token) and first.kind == "word":
            if first.value in ("and", "or"):
                return self._logic(first.value, command.words[1:], dot, last)
            arguments = [self._value(word, dot) for word in command.words[1:]] + last
            try:
                return FUNCTIONS[first.value](*arguments)
            except TemplateError:
                raise
            except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                raise TemplateError(
                    f'template: :1: executing "" at <{first.value}>: error calling {first.value}: {error}'
                ) from error
        if len(command.words) > 1 or last:
            called = self._method(first, [self._value(word, dot) for word in command.words[1:]] + last, dot)
            if called is not None:
                return called
            raise TemplateError(f"template: :1: can't give argument to non-function {_shown(first)}")
        return self._value(first, dot)

    def _method(self, word: Any, arguments: list[Any], dot: Any) -> Any:
        if not isinstance(word, Chain) or word.start not in (None, "$") or len(word.fields) != 1:
            return None
        caller = getattr(dot if word.start is None else self.variables["$"], "template_call", None)
        return caller(word.fields[0], arguments) if caller else None

    def _logic(self, name: str, words: list[Any], dot: Any, last: list[Any]) -> Any:
        value: Any = None
        for word in words:
            value = self._value(word, dot)
            if truth(value) == (name == "or"):
                return value
        return last[0] if last else value

    def _value(self, word: Any, dot: Any) -> Any:
        if isinstance(word, Token):
            if word.kind == "word":
                return self._command(Command([word]), dot, [])
            return word.value
        chain: Chain = word
        if chain.start is None:
            value = dot
        elif isinstance(chain.start, str):
            if chain.start not in self.variables:
                raise TemplateError(f'template: :1: undefined variable "{chain.start}"')
            value = self.variables[chain.start]
        else:
            value = self.pipeline(chain.start, dot)
        for field in chain.fields:
            value = lookup(value, field, chain.text)
        return value


def _shown(word: Any) -> str:
    return str(word.text if isinstance(word, Chain) else word.value)


def lookup(value: Any, field: str, text: str) -> Any:
    """Return a field of a JSON object, or of a row.

    Raises:
        TemplateError: there is no such field.
    """
    if isinstance(value, dict):
        if field in value:
            return value[field]
        folded = field.lower()
        for key in value:
            if key.lower() == folded:
                return value[key]
        raise TemplateError(f'template: :1:2: executing "" at <{text}>: map has no entry for key "{field}"')
    getter = getattr(value, "template_field", None)
    if getter is not None:
        return getter(field)
    if value is None:
        raise TemplateError(f'template: :1:2: executing "" at <{text}>: nil data; no entry for key "{field}"')
    kind = {str: "string", int: "int", float: "float64", bool: "bool", list: "[]interface {}"}.get(type(value), "value")
    raise TemplateError(f'template: :1:2: executing "" at <{text}>: can\'t evaluate field {field} in type {kind}')

"""Bake files: the language, its functions, and what targets come to."""

import json

import pytest
from hypothesis import given, strategies as st

from barque.base.errors import InvalidInputError
from barque.cli.building.bake import compose, functions
from barque.cli.building.bake.definitions import World, read_hcl, read_json
from barque.cli.building.bake.targets import Project


def project(text, environment=None, overrides=()):
    return Project(World([read_hcl(text, "f.hcl")], environment or {}, {}).all(), list(overrides))


def argument(expression, environment=None, before=""):
    return project(f'{before}\ntarget "t" {{\n args = {{ x = {expression} }}\n}}', environment).resolve("t")["args"]["x"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"), ("10 / 4", "2.5"), ("-7 % 3", "-1"), ("true && !false", "true"), ('1 > 2 ? "a" : "b"', "b"),
        ('"${1}-${"in ${"deep"}"}"', "1-in deep"), (r'"\u00e9\"\n$${a}%%{b}"', 'é"\n${a}%{b}'), ("[1, 2][1]", "2"),
        ('{ a = { b = "c" } }.a["b"]', "c"), ('join(",", [for i, v in ["a", "b"] : "${i}${v}" if v != "a"])', "1b"),
        ('{ for k, v in { x = "1", y = "1" } : v => k... }["1"][1]', "y"), ('join("", [{ n = "a" }, { n = "b" }][*].n)', "ab"),
        ('"%{ for x in ["a", "b"] ~} ${x} %{~ endfor }"', "ab"), ('"%{ if false }a%{ else }b%{ endif }"', "b"),
        ('format("%05.1f|%-4s|%v", 2.25, "a", [1])', "002.2|a   |[1]"), ('try({}.a, "else")', "else"), ("can({}.a)", "false"),
        ('<<-E\n   a\n     b\n   E\n', "a\n  b\n"), ('max([1, 5, 3]...)', "5"), ("(\n1\n+\n2\n)", "3"),
    ],
)  # fmt: skip
def test_an_expression_has_its_value(expression, value):
    assert argument(expression) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('target "t" {', "f.hcl:1,13: the block is not closed"), ('target "t" { args = { x = nothing } }', "undefined variable 'nothing'"),
        ('variable "a" { default = b }\nvariable "b" { default = a }', "variable cycle not allowed for a"),
        ('target "t" { args = { x = nofunction(1) } }', "there is no function 'nofunction'"), ('target "t" { odd = 1 }', "unsupported attribute 'odd'"),
        ('target "t" { args = { x = rsadecrypt(1, 2) } }', "the function rsadecrypt is not supported"), ('odd "t" { }', "unsupported block type 'odd'"),
        ('target "t" { args = { x = 1 / 0 } }', "division by zero"), ('a = "x\n', "the text is not closed"), ("a = 1 2", "a new line is missing"),
        ('target "t" { inherits = ["t"] }', "infinite loop from t"), ("a = " + "(" * 500, "nested too deeply"),
        ('variable "v" {\n validation {\n condition = v != null\n error_message = "say v"\n }\n}', "v: say v"),
        ('target "t" { tags = "x" }', "tags must be a list"), ('target "t" { matrix = { a = ["1"] } }', "a matrix needs a name"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(text, message):
    with pytest.raises(InvalidInputError, match=r".") as error:
        project(text).resolve("t")
    assert message in str(error.value)


def test_variables_take_values_and_types_from_outside():
    before = 'variable "n" { default = 1 }\nvariable "b" { default = false }\nvariable "l" {\n type = list(number)\n default = []\n}'
    environment = {"n": "41", "b": "1", "l": "1,2"}
    assert argument('"${n + 1}${b ? "yes" : "no"}${l[1] + 1}"', environment, before) == "42yes3"
    with pytest.raises(InvalidInputError, match="failed to parse n as number: 'x'"):
        argument("n", {"n": "x"}, before)


def test_functions_of_a_file_and_other_targets_are_reached():
    before = 'function "f" {\n params = [a]\n variadic_params = rest\n result = "${a}-${join("", rest)}"\n}\ntarget "o" { tags = ["x"] }'
    assert argument('f("1", "2", target.o.tags[0])', before=before) == "1-2x"


def test_a_matrix_is_a_group_and_overrides_reach_heirs():
    text = 'target "p" { args = { a = "1" } }\ntarget "m" {\n name = "m-${v}"\n matrix = { v = ["x", "y"] }\n inherits = ["p"]\n args = { v = v }\n}'
    made = project(text, overrides=["p.args.a=2", "m-*.tags=one", "m-*.tags=two", "m-x.tags+=three"])
    groups, names = made.names(["m"])
    assert groups == {"m": ["m-x", "m-y"], "default": ["m"]}
    assert [made.resolve(name)["args"] for name in names] == [{"a": "2", "v": "x"}, {"a": "2", "v": "y"}]
    assert made.resolve("m-x")["tags"] == ["one", "two", "three"]
    with pytest.raises(InvalidInputError, match="could not find any target matching 'q'"):
        project(text, overrides=["q.args.a=1"])


def test_json_is_the_same_language():
    text = json.dumps({"variable": {"v": {"default": "x"}}, "target": {"t": {"tags": ["${v}:1"], "args": {"n": 3}}}})
    made = Project(World([read_json(text, "f.json")], {"v": "y"}, {}).all(), []).resolve("t")
    assert (made["tags"], made["args"]) == (["y:1"], {"n": "3"})


def test_compose_variables_are_replaced():
    environment = {"A": "a", "EMPTY": ""}
    text = "$A ${A}${NO:-d}${EMPTY:-e}${EMPTY-f}${A:+g} $$A"
    assert compose.interpolated({"k": [text]}, environment, "f") == {"k": ["a adeg $A"]}
    with pytest.raises(InvalidInputError, match="required variable NO is missing a value: why"):
        compose.interpolated("${NO:?why}", environment, "f")


@given(st.text(alphabet='ab{}[]()"$%~<>.,=?:\\n#/*-+!&|0 ', max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        project(f"x = {text}")
    except InvalidInputError:
        pass


@given(st.sampled_from(sorted(set(functions.FUNCTIONS) - {"bcrypt"})), st.lists(st.sampled_from(["a", "1", "", "[", "x/y"]), max_size=3))
def test_any_argument_is_taken_or_refused(name, values):
    listed = ", ".join(json.dumps(one) for one in values)
    try:
        project(f'target "t" {{\n args = {{ x = jsonencode({name}({listed})) }}\n}}')
    except InvalidInputError:
        pass

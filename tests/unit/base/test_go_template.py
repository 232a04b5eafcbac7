"""Templates of --format give what Go's give."""

import pytest
from hypothesis import given, strategies

from barque.base.errors import InvalidInputError
from barque.base.go_lexer import TemplateError
from barque.base.go_template import Template
from barque.cli.tables import align, parse_template, render

DATA = {
    "Id": "0123456789abcdef",
    "Name": "/web",
    "State": {"Status": "running", "Running": True, "Pid": 7, "Error": ""},
    "Config": {"Cmd": ["sleep", "1"], "Labels": {"b": "2", "a": "1"}, "Env": None, "a.b": "dotted"},
    "Ratio": 1.5,
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{.Name}}", "/web"),
        ("{{.ID}}", "0123456789abcdef"),
        ("{{.State.Pid}} {{.State.Running}} {{.Ratio}}", "7 true 1.5"),
        ("{{.Config.Cmd}} {{.Config.Labels}} {{.Config.Env}}", "[sleep 1] map[a:1 b:2] <no value>"),
        ("{{json .Config.Cmd}}", '["sleep","1"]'),
        ('{{index .Config.Labels "b"}} {{index .Config.Cmd 1}} {{index .Config "a.b"}}', "2 1 dotted"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range $i, $e := .Config.Cmd}}{{if $i}}, {{end}}{{$e}}{{end}}", "sleep, 1"),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ('{{if eq .State.Status "exited" "running"}}yes{{else}}no{{end}}', "yes"),
        ("{{if and .State.Running (gt .State.Pid 5)}}a{{else if .Name}}b{{end}}", "a"),
        ("{{if .State.Error}}a{{else if .Name}}b{{else}}c{{end}}", "b"),
        ("{{with .State.Error}}x{{else}}clean{{end}}", "clean"),
        ("{{with .State}}{{.Status | upper}} {{$.Name}}{{end}}", "RUNNING /web"),
        ('{{printf "%s-%03d %q %v%%" .Name .State.Pid "a" .Ratio}}', '/web-007 "a" 1.5%'),
        ('{{join .Config.Cmd "+"}} {{split "a,b" ","}} {{title "foo bar"}}', "sleep+1 [a b] Foo Bar"),
        ("{{slice .Id 0 4}} {{len .Config.Cmd}} {{truncate .Name 2}}", "0123 2 /w"),
        ("{{pad .Name 1 2}}|", " /web  |"),
        ("a {{- .Name -}} b", "a/webb"),
        ("{{/* nothing */}}x", "x"),
        ("{{$x := 5}}{{$x = .State.Pid}}{{$x}}", "7"),
        ("{{println .Name 1}}", "/web 1\n"),
        ("{{range .Config.Cmd}}{{.}}{{break}}{{end}}", "sleep"),
        ("{{not .State.Running}} {{or .State.Error .Name}}", "false /web"),
        ('{{`raw"`}}{{"t\\tx"}}', 'raw"t\tx'),
    ],
)
def test_a_template_renders(source, text):
    assert Template(source).render(DATA) == text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Foo}}", 'executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.Name.Foo}}", "can't evaluate field Foo in type string"),
        ("{{index .Config.Cmd 9}}", "index out of range: 9"),
        ("{{$nope}}", 'undefined variable "$nope"'),
        ("{{upper 1}}", "error calling upper"),
    ],
)
def test_a_template_that_does_not_fit_is_an_error(source, message):
    with pytest.raises(InvalidInputError, match="template parsing error: ") as caught:
        render(parse_template(source), DATA)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source", ["{{", "{{.A", "{{if}}x{{end}}", "{{if .A}}", "{{nosuch .}}", '{{"a}}', "{{end}}", "{{(.A}}", "{{|}}"]
)
def test_a_broken_template_is_refused(source):
    with pytest.raises(TemplateError):
        Template(source)


@given(strategies.text(alphabet="{}.$|()\"'`- abIfrangeend:=,/*0", max_size=40))
def test_any_text_is_rendered_or_refused_but_never_crashes(source):
    try:
        Template(source).render(DATA)
    except TemplateError:
        pass


def test_columns_are_three_blanks_apart_and_at_least_ten_wide():
    assert align([["ID", "NAMES"], ["abcdefghijkl", "x"]]) == "ID             NAMES\nabcdefghijkl   x\n"
    assert align([["A", "B"], ["a", "b"]]) == "A         B\na         b\n"

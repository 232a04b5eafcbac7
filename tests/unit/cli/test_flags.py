"""The parser of flags behaves as Docker's does."""

import pytest

from barque.cli.catalog import COMMANDS, find
from barque.cli.flags import UsageError, parse, read_table
from barque.cli.main import flags_of
from barque.cli.usage import command_help

RUN = flags_of("container run")


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_a_readable_table_and_help(path):
    flags = flags_of(path)
    text = command_help(path, COMMANDS[path].usage, COMMANDS[path].text, [path], flags)
    assert text.startswith(f"Usage:  barque {path}")
    shorts = [flag.short for flag in flags if flag.short]
    assert len(shorts) == len(set(shorts))


def test_short_flags_combine_and_take_values_attached():
    options, rest = parse(RUN, ["-itd", "-p8080:80", "-eA=b", "-w=/x", "img", "-x"], interspersed=False)
    assert options["interactive"] and options["tty"] and options["detach"]
    assert options["publish"] == ["8080:80"] and options["env"] == ["A=b"] and options["workdir"] == "/x"
    assert rest == ["img", "-x"]


def test_flags_stand_anywhere_where_the_verb_allows_it():
    options, rest = parse(flags_of("container rm"), ["a", "-f", "b", "--", "-v"])
    assert options["force"] and rest == ["a", "b", "-v"]


def test_a_bool_flag_takes_a_value_only_behind_an_equals_sign():
    options, rest = parse(RUN, ["--sig-proxy=false", "--init", "false", "img"], interspersed=False)
    assert not options["sig-proxy"] and options["init"] and rest == ["false", "img"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nosuch"], "unknown flag: --nosuch"),
        (["-itz"], "unknown shorthand flag: 'z' in -z"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["--=x"], "bad flag syntax: --=x"),
        (
            ["--init=x"],
            'invalid argument "x" for "--init" flag: strconv.ParseBool: parsing "x": invalid syntax',
        ),
        (
            ["-c", "x"],
            'invalid argument "x" for "-c, --cpu-shares" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["--blkio-weight", "70000"],
            'invalid argument "70000" for "--blkio-weight" flag: strconv.ParseUint: parsing "70000": value out of range',
        ),
        (["-m", "xx"], 'invalid argument "xx" for "-m, --memory" flag: invalid size: \'xx\''),
    ],
)
def test_a_wrong_flag_is_told_in_dockers_words(words, message):
    with pytest.raises(UsageError) as caught:
        parse(RUN, words, interspersed=False)
    assert str(caught.value) == message


def test_a_table_line_without_default_starts_at_zero():
    options, _ = parse(read_table("- n int A number\n- s strings Some"), ["--s", "a,b", "--s=c"])
    assert options["n"] == 0 and options["s"] == ["a", "b", "c"] and options.given("s")


def test_aliases_lead_to_their_commands():
    assert find(["ps", "-a"]) == ("container ls", "ps", ["-a"])
    assert find(["container", "list"]) == ("container ls", "container list", [])
    assert find(["container", "nosuch"]) is None

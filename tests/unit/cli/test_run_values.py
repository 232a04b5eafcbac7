"""Ports, mounts, networks and other values of run."""

import pytest
from hypothesis import given, strategies

from barque.base.errors import InvalidInputError
from barque.cli.flags import parse
from barque.cli.main import flags_of
from barque.cli.run_mounts import parse_mount, split_volumes
from barque.cli.run_ports import Publication, parse_expose, parse_publish
from barque.cli.run_spec import create_body, restart_policy
from barque.cli.run_values import VALIDATORS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("80", [Publication("80/tcp", "", "")]),
        ("8080:80", [Publication("80/tcp", "", "8080")]),
        ("127.0.0.1::80/udp", [Publication("80/udp", "127.0.0.1", "")]),
        ("[::1]:81:80", [Publication("80/tcp", "::1", "81")]),
        ("8000-8001:90-91", [Publication("90/tcp", "", "8000"), Publication("91/tcp", "", "8001")]),
        ("8000-8010:80", [Publication("80/tcp", "", "8000-8010")]),
        ("target=80,published=8080,protocol=udp", [Publication("80/udp", "", "8080")]),
    ],
)
def test_a_publication_is_read(text, found):
    assert parse_publish(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("99999:1", "invalid hostPort: 99999"),
        ("foo", "invalid containerPort: foo"),
        ("1.2.3.4.5:80:80", "invalid IP address: 1.2.3.4.5"),
        ("80/foo", "invalid proto: foo"),
        ("8000-8010:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8010"),
    ],
)
def test_a_wrong_publication_is_told_in_dockers_words(text, message):
    with pytest.raises(InvalidInputError) as caught:
        parse_publish(text)
    assert str(caught.value) == message


@given(strategies.text(alphabet="0123456789:-/.[]tcpud=,", max_size=24))
def test_any_text_is_a_publication_or_refused(text):
    try:
        parse_publish(text)
    except InvalidInputError:
        pass


def test_exposed_ranges_are_every_port_of_them():
    assert parse_expose("5-7/udp") == ["5/udp", "6/udp", "7/udp"]


def test_a_mount_is_read():
    assert parse_mount("type=bind,src=/x,dst=/y,readonly,bind-propagation=rshared") == {
        "Type": "bind",
        "Source": "/x",
        "Target": "/y",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rshared"},
    }
    assert parse_mount("type=tmpfs,dst=/t,tmpfs-size=10m,tmpfs-mode=1777")["TmpfsOptions"] == {
        "SizeBytes": 10 << 20,
        "Mode": 0o1777,
    }
    assert parse_mount('"dst=/a,b"')["Target"] == "/a,b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("type=bind,src=/x", "target is required"),
        ("dst=/a,bind-propagation=shared", "cannot mix 'bind-*' options with mount type 'volume'"),
        ("dst=/a,readonly=no", "invalid value for readonly: no"),
    ],
)
def test_a_wrong_mount_is_told_in_dockers_words(text, message):
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_mount(text)
    assert str(caught.value) == message


@given(strategies.text(alphabet='abtypedstrc=,/"-.0', max_size=30))
def test_any_text_is_a_mount_or_refused(text):
    try:
        parse_mount(text)
    except ValueError:
        pass


def test_a_volume_without_a_source_is_anonymous():
    assert split_volumes(["/a", "v:/b", "/h:/c:ro"]) == (["v:/b", "/h:/c:ro"], {"/a": {}})


def body(*words):
    options, rest = parse(flags_of("container run"), list(words), interspersed=False, validators=lambda: VALIDATORS)
    return create_body(options, rest)


def test_a_plain_run_attaches_output_only():
    found = body("busybox", "sh", "-c", "x")
    assert found["Cmd"] == ["sh", "-c", "x"] and found["AttachStdout"] and not found["AttachStdin"]
    assert found["HostConfig"]["NetworkMode"] == "default" and found["HostConfig"]["MemorySwappiness"] == -1


def test_a_detached_run_attaches_nothing():
    found = body("-dit", "busybox")
    assert found["OpenStdin"] and found["Tty"] and not (found["AttachStdin"] or found["AttachStdout"])


def test_limits_and_lists_reach_the_host_configuration():
    host = body("-m1g", "--memory-swap=-1", "--cpus=1.5", "--ulimit=nofile=1:2", "--cap-add=sys_admin", "i")[
        "HostConfig"
    ]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1 << 30, -1, 1_500_000_000)
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 2, "Soft": 1}] and host["CapAdd"] == ["CAP_SYS_ADMIN"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--restart=always", "--rm"), "conflicting options: cannot specify both --restart and --rm"),
        (("--health-retries=-1",), "--health-retries cannot be negative"),
        (("--no-healthcheck", "--health-cmd=x"), "--no-healthcheck conflicts with --health-* options"),
        (("--pid=foo",), "--pid: invalid PID mode"),
        (("--security-opt=foo",), 'Invalid --security-opt: "foo"'),
        (
            ("--network=host", "--network=foo"),
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            ("--network=none", "--network-alias=a"),
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (("--env-file=/nosuch",), "open /nosuch: no such file or directory"),
        (("--device=foo",), "foo is not an absolute path"),
    ],
)
def test_contradictions_are_told_in_dockers_words(words, message):
    with pytest.raises(InvalidInputError) as caught:
        body(*words, "busybox")
    assert str(caught.value) == message


def test_restart_policies_are_read():
    assert restart_policy("on-failure:3") == {"Name": "on-failure", "MaximumRetryCount": 3}
    with pytest.raises(InvalidInputError):
        restart_policy(":3")

"""Refusals of create requests, in Docker's words."""

import pytest

from barque.base.errors import InvalidInputError
from barque.base.signals import parse_signal
from barque.engine.checks import check_config, check_types, parse_size
from barque.engine.config import EngineConfig


def refused(config, match, error=InvalidInputError):
    config.setdefault("HostConfig", {})
    with pytest.raises(error, match=match):
        check_types(config)
        check_config(config, EngineConfig())


@pytest.mark.parametrize(
    ("host", "match"),
    [
        ({"Memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"MemorySwap": 1 << 30}, "You should always set the Memory limit"),
        ({"Memory": 8 << 20, "MemorySwap": 7 << 20}, "Minimum memoryswap limit should be larger"),
        ({"NanoCpus": 10**15}, "range of CPUs is from 0.01"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Conflicting options: Nano CPUs and CPU Quota"),
        ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "unknown policy 'sometimes'"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}, "maximum retry count can only be used"),
        ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, "can't create 'AutoRemove' container"),
        ({"Runtime": "nosuch"}, "unknown or invalid runtime name: nosuch"),
        ({"PortBindings": {"80/abc": None}}, "invalid proto: abc"),
        ({"PortBindings": {"99999/tcp": None}}, "invalid port specification"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}, "invalid port specification"),
        ({"PidMode": "nosuch"}, "invalid PID mode: nosuch"),
        ({"IpcMode": "nosuch"}, "invalid IPC mode: nosuch"),
        ({"CapAdd": ["NOSUCH"]}, 'invalid capability: "NOSUCH"'),
        ({"SecurityOpt": ["nosuch"]}, "invalid --security-opt 1"),
        ({"OomScoreAdj": 2000}, r"range for oom score adj is \[-1000, 1000\]"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"Memory": "much"}, "Memory must be a number"),
        ({"Binds": "x"}, "Binds must be a list of strings"),
        ({"CpusetCpus": "9999"}, "Requested CPUs are not available"),
        ({"CpusetCpus": "9" * 5000}, "invalid format"),
        ({"NanoCpus": 1}, "range of CPUs is from 0.01"),
        ({"CpuCount": 1}, "HostConfig.CpuCount is for containers of Windows"),
        ({"CpuPercent": 1}, "HostConfig.CpuPercent is for containers of Windows"),
        ({"IOMaximumIOps": 1}, "HostConfig.IOMaximumIOps is for containers of Windows"),
        ({"IOMaximumBandwidth": 1}, "HostConfig.IOMaximumBandwidth is for containers of Windows"),
        ({"Cgroup": "container:x"}, "HostConfig.Cgroup is not supported"),
        ({"SecurityOpt": ["proc-opts=hidepid=2"]}, "invalid --security-opt 2"),
        ({"PortBindings": {"9" * 5000: None}}, "invalid port specification"),
        ({"PortBindings": {"80-99999/tcp": None}}, "invalid port specification"),
        ({"PortBindings": {"90-80/tcp": None}}, "invalid port specification"),
    ],
)
def test_a_host_config_that_cannot_be_is_refused(host, match):
    refused({"HostConfig": host}, match)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"Env": ["=x"]}, "invalid environment variable"),
        ({"WorkingDir": "relative"}, "needs to be an absolute path"),
        ({"StopSignal": "NOSUCH"}, "invalid signal: NOSUCH"),
        ({"ExposedPorts": {"http": {}}}, "invalid port specification"),
        ({"Healthcheck": {"Interval": 5}}, "cannot be less than 1ms"),
        ({"Cmd": {"a": 1}}, "Cmd must be a list of strings"),
        ({"Image": 5}, "Image must be a string"),
        ({"HostConfig": {"NetworkMode": "container:x"}, "Hostname": "h"}, "hostname and the network mode"),
    ],
)
def test_a_config_that_cannot_be_is_refused(config, match):
    refused(config, match)


@pytest.mark.parametrize(("text", "number"), [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("term", 15), ("RTMIN+1", 35)])
def test_signals_are_named_or_numbered(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize(("text", "size"), [("10m", 10 << 20), ("1g", 1 << 30), ("512", 512), ("4kb", 4096)])
def test_sizes_have_units(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["9" * 400 + "g", "9" * 5000, "9" * 19 + "p", "1e9", "-1", ""])
def test_a_size_beyond_all_is_refused(text):
    with pytest.raises(InvalidInputError, match="invalid size"):
        parse_size(text)


def test_labels_of_selinux_are_said_to_do_nothing():
    config = {"HostConfig": {"SecurityOpt": ["label=type:container_t"]}}
    assert "no effect" in check_config(config, EngineConfig())[0]
    assert check_config({"HostConfig": {"SecurityOpt": ["label=disable"]}}, EngineConfig()) == []

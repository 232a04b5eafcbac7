import json

import pytest

from barque.daemon import config
from barque.daemon.flags import DaemonError
from barque.daemon.main import main
from barque.daemon.options import Options


@pytest.fixture
def options(tmp_path):
    def make(*argv, file=None):
        path = tmp_path / "daemon.json"
        if file is not None:
            path.write_text(file if isinstance(file, str) else json.dumps(file))
        return Options(["--config-file", str(path), *argv])

    return make


def test_flags_come_in_all_of_their_spellings(options):
    found = options("-H", "unix:///a", "-Htcp://127.0.0.1:1", "--debug", "--icc=false", "--mtu", "1400", "-l=warn")
    assert found["host"] == ["unix:///a", "tcp://127.0.0.1:1"]
    assert (found["debug"], found["icc"], found["mtu"], found["log-level"]) == (True, False, 1400, "warn")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bogus"], "unknown flag: --bogus"),
        (["-Z"], "unknown shorthand flag"),
        (["--mtu"], "flag needs an argument: --mtu"),
        (["--icc=maybe"], 'invalid argument "maybe" for "--icc" flag'),
        (["--mtu=x"], 'invalid argument "x" for "--mtu" flag'),
        (["--userns-remap=default"], "--userns-remap is not supported"),
        (["extra"], "accepts no arguments"),
        (["--log-level=loud"], "invalid logging level: loud"),
        (["--storage-driver=zfs"], "unsupported storage driver: zfs"),
        (["--default-ulimit=nofile"], "must be formatted as"),
        (["--label=x"], "bad attribute format: x"),
        (["--default-runtime=nope"], "specified default runtime 'nope' does not exist"),
        (["--bridge=b0", "--bip=10.0.0.1/24"], "mutually exclusive"),
        (["--exec-opt=native.cgroupdriver=systemd"], "unsupported exec option"),
        (["--default-shm-size=big"], "invalid size"),
    ],
)
def test_a_wrong_flag_is_told(options, argv, message):
    with pytest.raises(DaemonError, match=message.replace("[", r"\[")):
        options(*argv)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "not a JSON object"),
        ({"nope": 1}, "the following directives don't match any configuration option: nope"),
        ({"debug": "yes"}, "cannot unmarshal"),
        ({"mtu": True}, "cannot unmarshal"),
        ({"dns": [1]}, "cannot unmarshal"),
        ({"userns-remap": "default"}, "not supported by this engine: userns-remap"),
        ({"default-ulimits": {"nofile": 3}}, "invalid default-ulimits entry"),
        ({"runtimes": {"x": {"path": 1}}}, "runtime x: wants a path"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(options, file, message):
    with pytest.raises(DaemonError, match=message) as caught:
        options(file=file)
    assert "unable to configure the Barque daemon with file" in str(caught.value)


def test_a_flag_and_a_key_of_the_file_conflict(options):
    with pytest.raises(DaemonError) as caught:
        options("--debug", "-H", "unix:///a", file={"debug": False, "hosts": ["unix:///b"]})
    assert (
        "the following directives are specified both as a flag and in the configuration file: "
        "debug: (from flag: true, from file: false), hosts: (from flag: [unix:///a], from file: [unix:///b])"
    ) in str(caught.value)


def test_options_reach_the_engine(options):
    found = config.engine_config(
        options(
            "--bip=10.1.0.1/24", "--default-ulimit=nofile=10:20", "--log-opt=max-size=1m", "--add-runtime=mine=/bin/r",
            "--default-address-pool=base=10.0.0.0/8,size=24", "--iptables=false", "--live-restore",
            file={"dns": ["1.1.1.1"], "labels": ["a=b"], "default-shm-size": "32M"},
        )
    )  # fmt: skip
    assert found.network.bip == "10.1.0.1/24"
    assert not found.network.iptables
    assert found.network.default_address_pools == (("10.0.0.0/8", 24),)
    assert found.default_ulimits == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert (found.log_opts, found.runtimes["mine"]) == ({"max-size": "1m"}, "/bin/r")
    assert (found.dns, found.labels, found.shm_size, found.live_restore) == (["1.1.1.1"], ["a=b"], 32 << 20, True)


def test_a_reload_changes_what_may_change(options, tmp_path):
    found = options(file={"labels": ["a=b"], "mtu": 1400})
    engine = config.engine_config(found)
    (tmp_path / "daemon.json").write_text('{"labels": ["c=d"], "mtu": 1300, "shutdown-timeout": 3}')
    found.load_file()
    assert sorted(config.reload(engine, found)) == ["labels", "shutdown_timeout_s"]
    assert (engine.labels, engine.shutdown_timeout_s, engine.network.mtu) == (["c=d"], 3, 1400)


def test_a_configuration_is_validated_without_starting(tmp_path, capsys):
    path = tmp_path / "daemon.json"
    path.write_text('{"debug": true}')
    assert main(["--validate", "--config-file", str(path)]) == 0
    assert capsys.readouterr().out == "configuration OK\n"
    path.write_text('{"nope": true}')
    assert main(["--validate", "--config-file", str(path)]) == 1
    assert "don't match any configuration option: nope" in capsys.readouterr().err


def test_the_units_for_systemd_are_printed(capsys):
    assert main(["--print-unit"]) == 0
    text = capsys.readouterr().out
    assert "Type=notify" in text
    assert "ListenStream=" in text


def test_a_daemon_that_wakes_has_the_options_it_had_whatever_the_file_says_by_now(options, tmp_path):
    first = options("--mtu", "1400", file={"labels": ["a=b"], "bip": "10.9.0.1/24"})
    (tmp_path / "daemon.json").write_text('{"labels": ["a=c"], "bip": "10.8.0.1/24"}')
    # A signal has it read its file: some of it is obeyed at once, some only at the next start.
    first.load_file()
    (tmp_path / "daemon.json").write_text("{broken")
    woken = Options(first.argv, json.loads(json.dumps(first.kept())))
    assert (woken["mtu"], woken["label"], woken["bip"]) == (1400, ["a=c"], "10.8.0.1/24")
    assert (woken.of_start()["label"], woken.of_start()["bip"]) == (["a=b"], "10.9.0.1/24")
    assert woken.given == first.given
    assert config.engine_config(woken.of_start()) == config.engine_config(first.of_start())

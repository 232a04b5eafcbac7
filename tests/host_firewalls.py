"""ufw or firewalld, as Debian packs them, on machines that are network namespaces."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from machines import Machine
from under_test import until

_BUS = """\
<busconfig><type>system</type><listen>unix:path={folder}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="*"/><allow receive_type="*"/></policy></busconfig>
"""


class HostFirewall(Protocol):
    """What an administrator does with his firewall; incoming packets are dropped unless he allows them."""

    def allow(self, port: str) -> None: ...

    def deny(self, port: str) -> None: ...

    def reload(self) -> None: ...

    def rules(self) -> str: ...


class Ufw:
    """Uncomplicated Firewall with a configuration of its own."""

    def __init__(self, where: Machine, folder: Path) -> None:
        """Copy what the package brought, and switch it on."""
        self._where, self._folder = where, folder
        for name in ("etc/ufw", "lib/ufw", "etc/default"):
            (folder / name).mkdir(parents=True)
        shutil.copytree("/etc/ufw", folder / "etc/ufw", dirs_exist_ok=True)
        shutil.copy("/etc/default/ufw", folder / "etc/default/ufw")
        self.ufw("--force enable")

    def ufw(self, words: str) -> None:
        """Run the command."""
        self._where.run(f"ufw --rootdir=/ --datadir={self._folder} {words}")

    def allow(self, port: str) -> None:
        """Let a port of this machine be reached."""
        self.ufw(f"allow {port}")

    def deny(self, port: str) -> None:
        """Take that back."""
        self.ufw(f"delete allow {port}")

    def reload(self) -> None:
        """Make all its rules anew."""
        self.ufw("reload")

    def rules(self) -> str:
        """Return its rules, without counters."""
        shown = self._where.run("iptables-save") + self._where.run("ip6tables-save")
        lines = [re.sub(r" ?\[\d+:\d+\] ?", "", line) for line in shown.splitlines() if not line.startswith("#")]
        return "\n".join(lines)


class Firewalld:
    """The firewall daemon with a bus and a configuration of its own."""

    def __init__(self, where: Machine, folder: Path, undo: "list[subprocess.Popen[bytes]]") -> None:
        """Start it, and wait until it answers."""
        self._where = where
        shutil.copytree("/etc/firewalld", folder / "firewalld")
        (folder / "bus.conf").write_text(_BUS.format(folder=folder))
        self._bus = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder}/bus"}
        enter = ["nsenter", f"--net={where.netns}"]
        with (folder / "log").open("wb") as log:
            undo.append(subprocess.Popen(["dbus-daemon", "--nofork", f"--config-file={folder}/bus.conf"], stdout=log, stderr=log))
            until((folder / "bus").exists, "the bus is there")
            words = ["firewalld", "--nofork", "--nopid", "--system-config", f"{folder}/firewalld", "--log-target", "console"]
            undo.append(subprocess.Popen([*enter, *words], env={**os.environ, **self._bus}, stdout=log, stderr=log))
        until(lambda: self.command("--state", check=False).strip() == "running", f"firewalld runs, see {folder}/log", 30)

    def command(self, words: str, *, check: bool = True) -> str:
        """Run firewall-cmd."""
        return self._where.run(f"firewall-cmd {words}", check=check, environment=self._bus)

    def allow(self, port: str) -> None:
        """Let a port of this machine be reached."""
        self.command(f"--permanent --add-port={port}")
        self.command(f"--add-port={port}")

    def deny(self, port: str) -> None:
        """Take that back."""
        self.command(f"--permanent --remove-port={port}")
        self.command(f"--remove-port={port}")

    def reload(self) -> None:
        """Make all its rules anew."""
        self.command("--reload")

    def rules(self) -> str:
        """Return its rules; handles and counters are not shown."""
        return self._where.run("nft list table inet firewalld")


@contextmanager
def firewall(kind: str, where: Machine, folder: Path) -> Iterator[HostFirewall]:
    """Give a machine a firewall; skip the test, aloud, where it is not installed."""
    for command in {"ufw": ("ufw", "iptables-save"), "firewalld": ("firewalld", "firewall-cmd", "dbus-daemon")}[kind]:
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed: {kind} is not tried")
    undo: list[subprocess.Popen[bytes]] = []
    try:
        yield Ufw(where, folder) if kind == "ufw" else Firewalld(where, folder, undo)
    finally:
        for process in reversed(undo):
            process.terminate()
            process.wait(20)

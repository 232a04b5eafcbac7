"""What a container must not reach: the host's files, descriptors and devices, and the engine's own program."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from under_test import EngineUnderTest

pytestmark = pytest.mark.system


def test_the_hosts_null_device_cannot_be_changed_from_inside(engine: EngineUnderTest) -> None:
    before = os.stat("/dev/null")
    script = "chmod 640 /proc/self/fd/0; chown 33:33 /proc/keys /proc/timer_list; touch -d 2001-01-01 /proc/keys; exit 0"
    try:
        engine.docker("run", "--rm", "busybox", "sh", "-c", script)
        engine.docker("run", "-d", "--name", "inner", "busybox", "sleep", "100")
        engine.docker("exec", "inner", "sh", "-c", script)
        engine.docker("run", "--rm", "--tmpfs", "/dev", "busybox", "sh", "-c", script)
        after = os.stat("/dev/null")
        assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, before.st_uid, before.st_mtime)
    finally:
        os.chmod("/dev/null", 0o666)
        os.chown("/dev/null", 0, 0)
        engine.docker("rm", "-f", "inner")


def test_no_descriptor_of_the_host_is_open_inside(engine: EngineUnderTest) -> None:
    script = 'for fd in /proc/1/fd/* /proc/self/fd/*; do case $fd in */[012]) ;; *) [ -e $fd ] && stat -L -c "$fd %D %F" $fd;; esac; done; exit 0'
    for flags in ([], ["-t"], ["--privileged"], ["--user", "33"]):
        assert engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", script).splitlines() == []
    engine.docker("run", "-d", "--name", "inner", "busybox", "sleep", "100")
    script = script.replace("/proc/1/fd/*", "/proc/$$/fd/*")
    assert engine.docker("exec", "inner", "sh", "-c", script).splitlines() == []
    engine.docker("rm", "-f", "inner")


def test_no_other_user_can_walk_into_the_engines_folders(engine: EngineUnderTest) -> None:
    # Below them are variables of containers, and programs in volumes and layers that may be set-user-id.
    for name in ("data", "exec"):
        assert (engine.root / name).stat().st_mode & 0o007 == 0


def test_no_path_of_the_host_shows_inside_but_those_of_the_files_it_was_given(engine: EngineUnderTest) -> None:
    script = "cat /proc/1/mountinfo /proc/1/maps /proc/1/environ /proc/1/cmdline /proc/self/mounts; readlink /proc/1/exe; readlink /proc/1/cwd"
    shown = engine.docker("run", "--rm", "busybox", "sh", "-c", script)
    folder = str(engine.root)
    lines = [line for line in shown.splitlines() if folder in line]
    assert sorted(line.split()[4] for line in lines) == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
    assert sys.prefix not in shown
    assert str(Path(__file__).parents[2]) not in shown


@pytest.mark.parametrize("arguments", [
    ["run", "busybox", "/nosuch/program"],
    ["run", "-w", "/etc/passwd", "busybox", "true"],
    ["run", "--user", "nosuchuser", "busybox", "true"],
    ["run", "-v", "/x:/etc/passwd/below", "busybox", "true"],
    ["cp", "{name}:/nosuch", "-"],
    ["exec", "{name}", "/nosuch/program"],
    ["exec", "-w", "/nosuch", "{name}", "true"],
    ["inspect", "nosuch"],
    ["export", "nosuch"],
])  # fmt: skip
def test_errors_do_not_tell_the_engines_own_places(engine: EngineUnderTest, arguments: list[str]) -> None:
    engine.docker("run", "-d", "--name", "inner", "busybox", "sleep", "100")
    try:
        result = engine.docker_result(*(word.format(name="inner") for word in arguments))
        assert result.returncode != 0
        said = result.stdout + result.stderr
        assert said.strip()
        for place in (f"{engine.root}/data", f"{engine.root}/exec", "site-packages", "Traceback"):
            assert place not in said
    finally:
        for name in engine.docker("ps", "-aq").split():
            engine.docker_result("rm", "-f", name)


# Tries every way to open the program that runs it for writing, also once it does not run any more.
_ATTACK = """
import errno, os, sys
fd = os.open("/proc/self/exe", os.O_RDONLY)
path = os.open("/proc/self/exe", os.O_PATH)
for name in ("/proc/self/exe", f"/proc/self/fd/{fd}", f"/proc/self/fd/{path}"):
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try:
            os.open(name, flags)
            print("OPENED", name)
        except OSError as error:
            print(errno.errorcode[error.errno])
print(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY, flush=True)
os.dup2(path, 9)
os.execv("/bin/sh", ["sh", "-c", "(echo x >/proc/self/fd/9) 2>&1; (echo x >>/proc/self/fd/9) 2>&1; chmod 777 /proc/self/fd/9 2>&1; exit 0"])
"""


def test_the_engines_interpreter_cannot_be_overwritten_from_inside(engine: EngineUnderTest) -> None:
    interpreter = Path(os.path.realpath(sys.executable))
    before = (interpreter.stat().st_mtime_ns, interpreter.stat().st_mode, interpreter.stat().st_size)
    folders = {"/lib", "/lib64", "/usr", sys.base_prefix, str(sysconfig.get_config_var("LIBDIR") or "/usr/lib")}
    binds = [word for folder in sorted(folders) if Path(folder).exists() for word in ("-v", f"{folder}:{folder}:ro")]
    env = ["-e", f"PYTHONHOME={sys.base_prefix}"]
    attack = ["-S", "-c", _ATTACK]
    said = [
        # As the program itself: the loader and the libraries are the container's.
        engine.docker_result("run", "--rm", "--privileged", *binds, *env, "--entrypoint", "/proc/self/exe", "busybox", *attack)
    ]
    engine.docker("run", "-d", "--name", "inner", "--privileged", *binds, *env, "busybox", "sleep", "100")
    try:
        said.append(engine.docker_result("exec", "inner", "/proc/self/exe", *attack))
    finally:
        engine.docker("rm", "-f", "inner")
    for result in said:
        # Either it cannot even be executed, or it runs and is read-only to all.
        text = result.stdout + result.stderr
        assert "OPENED" not in text
        if result.returncode == 0:
            lines = result.stdout.splitlines()
            # ETXTBSY while it runs somewhere, EROFS for ever.
            assert set(lines[:9]) <= {"EROFS", "ETXTBSY"}, text
            assert lines[9] == "1"
            assert "chmod: /proc/self/fd/9: Read-only file system" in text
    after = (interpreter.stat().st_mtime_ns, interpreter.stat().st_mode, interpreter.stat().st_size)
    assert after == before


# What the session keyring is called (KEYCTL_DESCRIBE of KEY_SPEC_SESSION_KEYRING), who holds the terminal, and whether
# another process's terminal can be typed into (TIOCSTI).
_SESSION = """
import ctypes, fcntl, os, termios
text = ctypes.create_string_buffer(200)
ctypes.CDLL(None).syscall(250, 6, -3, text, 200)
print(text.value.decode().rpartition(";")[2])
print(os.fstat(0).st_rdev >> 8 == 136, os.fstat(0).st_dev == os.stat("/dev/pts").st_dev)
for place in ("/proc/self/fd", "/proc/1/fd"):
    print(sorted(fd for fd in os.listdir(place) if os.path.exists(f"{place}/{fd}") and int(fd) > 2))
"""


def _with_python() -> list[str]:
    folders = {"/lib", "/lib64", "/usr", sys.base_prefix, str(sysconfig.get_config_var("LIBDIR") or "/usr/lib")}
    binds = [word for folder in sorted(folders) if Path(folder).exists() for word in ("-v", f"{folder}:{folder}:ro")]
    return [*binds, "--security-opt", "seccomp=unconfined"]


@pytest.mark.parametrize("flags", [[], ["--init"], ["--user", "33"], ["--privileged"]])
def test_keyring_terminal_and_descriptors_are_the_containers_own(engine: EngineUnderTest, flags: list[str]) -> None:
    if "--init" in flags and "no init program" in engine.docker_result("run", "--rm", "--init", "busybox", "true").stderr:
        pytest.skip("no init program is installed")
    interpreter = os.path.realpath(sys.executable)
    identifier = engine.docker("run", "-d", "-t", "--name", "inner", *flags, *_with_python(), "busybox", "sleep", "100")
    try:
        said = engine.docker("exec", "-t", "inner", interpreter, "-I", "-S", "-c", _SESSION).splitlines()
    finally:
        engine.docker("rm", "-f", "inner")
    assert said[0] == f"_ses.{identifier}"
    assert said[1] == "True True"
    # The folder itself is open while it is listed, and gone when it is looked at.
    assert [line for line in said[2:] if line != "[]"] == [], said


def test_an_init_program_shows_no_path_of_the_host(engine: EngineUnderTest) -> None:
    result = engine.docker_result("run", "--rm", "--init", "-e", "PATH=/bin", "busybox", "sh", "-c",
                                  "cat /proc/1/cmdline /proc/1/maps /proc/1/environ; readlink /proc/1/exe; ls /proc/1/fd")  # fmt: skip
    if "no init program" in result.stderr:
        pytest.skip("no init program is installed")
    assert result.returncode == 0, result.stderr
    shown = result.stdout
    assert "/sbin/docker-init" in shown.splitlines()[-4]
    for place in (str(engine.root), sys.prefix, "/usr/bin", "/usr/libexec"):
        assert place not in shown
    assert shown.splitlines()[-3:] == ["0", "1", "2"]


def test_a_script_whose_interpreter_is_proc_self_exe_gains_nothing(engine: EngineUnderTest) -> None:
    engine.docker("create", "--name", "evil", "--entrypoint", "/evil", "busybox")
    script = engine.root / "evil"
    script.write_text("#!/proc/self/exe\nopen('/proc/self/exe', 'wb')\n")
    script.chmod(0o755)
    engine.docker("cp", str(script), "evil:/evil")
    result = engine.docker_result("start", "-a", "evil")
    assert result.returncode != 0
    engine.docker("rm", "-f", "evil")
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"


def test_a_privileged_container_has_what_the_engine_has_and_nothing_is_hidden(engine: EngineUnderTest) -> None:
    script = "grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; grep -c ' /proc/' /proc/self/mountinfo; grep ' /sys ' /proc/self/mountinfo"
    lines = engine.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", script).splitlines()
    own = next(line for line in Path(f"/proc/{engine.pid}/status").read_text().splitlines() if line.startswith("CapPrm"))
    assert lines[0].split()[1] == own.split()[1]
    assert [line.split()[1] for line in lines[1:3]] == ["0", "0"]
    assert lines[3] == "0"
    assert lines[4].split()[5].startswith("rw")


def test_a_passwd_file_that_is_a_device_or_a_pipe_is_not_opened(engine: EngineUnderTest) -> None:
    engine.docker("run", "--name", "odd", "--privileged", "busybox", "sh", "-c", "rm /etc/passwd; mknod /etc/passwd p")
    engine.docker("commit", "odd", "odd-image")
    engine.docker("rm", "odd")
    try:
        assert engine.docker("run", "--rm", "odd-image", "echo", "here", timeout=20) == "here"
        result = engine.docker_result("run", "--rm", "--user", "www", "odd-image", "true", timeout=20)
        assert "unable to find user www" in result.stderr
    finally:
        engine.docker("rmi", "odd-image")

"""`barque build` on a real engine, beside buildx where that is there."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from plugins import SOURCE, Run, barque_in, plugin_config, write
from under_test import EngineUnderTest, running, until

pytestmark = pytest.mark.system


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty folder to build in."""
    made = tmp_path / "w"
    made.mkdir()
    return made


@pytest.fixture
def barque(engine: EngineUnderTest, folder: Path) -> Run:
    """Give our command, run in the folder, with no configuration."""
    return barque_in(engine, folder, folder.parent / "none")


STAGES = """\
FROM busybox AS base
ENV COLOUR=red
RUN echo base > /base
FROM base AS side
ARG WORD=side
RUN echo $WORD > /side
FROM base
WORKDIR /w
COPY a.txt ./
COPY --from=side --chown=33:33 --chmod=640 /side /side
RUN cat a.txt /side
CMD ["cat", "/w/a.txt"]
"""


def shape(text: str) -> list[str]:
    """Return the lines of a plain display, less numbers of steps, times, sizes and digests, which chance decides."""
    lines = set()
    for line in text.splitlines():
        bare = re.sub(r"^#\d+ ", "# ", line)
        bare = re.sub(r"(transferring \w+:).*", r"\1", bare)
        bare = re.sub(r"^(# )?\d+\.\d+ ", "# N ", re.sub(r" \d+\.\ds\b", "", bare))
        bare = re.sub(r"sha256:\w+", "sha256:", bare)
        if bare and not bare.endswith(" ..."):
            lines.add(bare.strip())
    return sorted(lines)


def test_stages_are_built_and_told_in_the_form_of_buildx(barque: Run, folder: Path, engine: EngineUnderTest) -> None:
    write(folder, {"Dockerfile": STAGES, "a.txt": "hello\n"})
    first = barque("build", "-t", "told", "--build-arg", "WORD=other", ".").stderr
    assert re.search(r"^#\d+ \d\.\d{3} other$", first, re.MULTILINE), first
    assert engine.docker("run", "--rm", "told").strip() == "hello"
    assert engine.docker("run", "--rm", "told", "stat", "-c", "%u:%g %a", "/side").strip() == "33:33 640"
    second = barque("buildx", "build", "-t", "told", "--build-arg", "WORD=other", ".").stderr
    assert second.count(" CACHED\n") >= 6
    assert shape(second) == shape(of_buildx(folder, engine, "--progress=plain", "-t", "told", "--build-arg", "WORD=other"))


def of_buildx(folder: Path, engine: EngineUnderTest, *words: str) -> str:
    """Return what buildx says of a build."""
    config = plugin_config(folder.parent / "docker")
    return subprocess.run(
        ["docker", "buildx", "build", *words, "."], cwd=folder, env={**engine.environment, "DOCKER_CONFIG": str(config)},
        capture_output=True, text=True, timeout=60,
    ).stderr  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["FROM busybox AS Base\nENV a b\nRUN echo one; echo two >&2; exit 3\n", "FROM busybox\nRUNN x\n", "FROM busybox\nCOPY none /\n",
     "FROM busybox AS Base\nENV a b\nFROM scratch\nCOPY --from=base /bin/sh /\n"],
)  # fmt: skip
def test_failures_and_warnings_are_told_as_by_buildx(text: str, barque: Run, folder: Path, engine: EngineUnderTest) -> None:
    write(folder, {"Dockerfile": text})
    code = 0 if "COPY --from" in text else 1
    ours = barque("build", "--no-cache", ".", code=code).stderr
    theirs = re.sub(r"\x1b\[\d*m", "", of_buildx(folder, engine, "--no-cache", "--progress=plain"))
    assert shape(ours.replace("(use barque --debug", "(use --debug")) == shape(theirs)
    rows = [json.loads(line) for line in barque("build", "--no-cache", "--progress=rawjson", ".", code=code).stderr.splitlines() if line.startswith("{")]
    raw, at, decoder = of_buildx(folder, engine, "--no-cache", "--progress=rawjson"), 0, json.JSONDecoder()
    others = []
    while (at := raw.find("{", at)) >= 0 and raw[max(at - 1, 0)] in "\n{":
        row, at = decoder.raw_decode(raw, at)
        others.append(row)
    for kind, fields in (("vertexes", ("name", "cached", "error")), ("statuses", ("id",)), ("logs", ("stream", "data")), ("warnings", ("short", "url"))):
        said = [{tuple(re.sub(r"sha256:\w+", "", str(one.get(field))) for field in fields) for row in found for one in row.get(kind, [])} for found in (rows, others)]
        assert said[0] == said[1], kind


def test_a_changed_file_is_all_that_is_sent_again(barque: Run, folder: Path, engine: EngineUnderTest) -> None:
    write(folder, {"Dockerfile": "FROM busybox\nCOPY . /c/\n", "big": "x" * 9_000_000, "small": "1", "ignored/y": "y" * 5_000_000,
                   ".dockerignore": "ignored\n!ignored/z\n", "ignored/z": "z", "sub/deep/f": "f"})  # fmt: skip
    os.link(folder / "small", folder / "twin")
    (folder / "link").symlink_to("small")
    assert re.search(r"transferring context: 9\.\d+MB", barque("build", "-t", "sent", ".").stderr)
    (folder / "small").write_text("22")
    again = re.search(r"transferring context: (\S+)B", barque("build", "-t", "sent", ".").stderr)
    assert again is not None
    assert float(again[1].replace("k", "")) < 999 and "M" not in again[1]
    found = engine.docker("run", "--rm", "sent", "sh", "-c", "cd /c; find . | sort; cat link twin ignored/z; stat -c %u:%h small")
    assert found.split() == [".", "./.dockerignore", "./Dockerfile", "./big", "./ignored", "./ignored/z", "./link", "./small",
                             "./sub", "./sub/deep", "./sub/deep/f", "./twin", "2222z0:2"]  # fmt: skip


def test_outputs_go_to_folders_archives_and_standard_output(barque: Run, folder: Path, engine: EngineUnderTest) -> None:
    write(folder, {"Dockerfile": "FROM busybox AS b\nRUN echo x > /x && ln -s x /y\nFROM scratch\nCOPY --from=b /x /y /out/\n",
                   "made/kept": "kept"})  # fmt: skip
    barque("build", "-o", "made", ".")
    assert (folder / "made/out/x").read_text() == "x\n"
    assert (folder / "made/kept").read_text() == "kept"
    barque("build", "-q", "-o", "type=oci,dest=oci.tar", "-t", "example/oci:1", ".")
    with tarfile.open(folder / "oci.tar") as tar:
        index = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/example/oci:1"
    with (folder / "plain.tar").open("wb") as out:
        barque("build", "-q", "-o", "-", ".", capture_output=False, stdout=out)
    with tarfile.open(folder / "plain.tar") as tar:
        assert {"out/x", "out/y"} <= set(tar.getnames())
    made = barque("build", "-q", "-t", "two", "--iidfile", "id", "--metadata-file", "m.json", "--label", "a=b", ".").stdout.strip()
    assert made == (folder / "id").read_text() == engine.docker("image", "inspect", "-f", "{{.Id}}", "two").strip()
    metadata = json.loads((folder / "m.json").read_text())
    assert metadata["image.name"] == "docker.io/library/two:latest"
    assert metadata["buildx.build.ref"].startswith("default/default/")
    assert engine.docker("image", "inspect", "-f", '{{index .Config.Labels "a"}}', "two").strip() == "b"


def test_secrets_and_agents_reach_their_step(barque: Run, folder: Path) -> None:
    write(folder, {"secret": "swordfish", "Dockerfile":
          "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo\n"
          "RUN --mount=type=secret,id=e,env=E echo is $E\n"
          "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n"})  # fmt: skip
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(folder.parent / "agent"))
        agent.listen()
        said = barque("build", "--secret", "id=s,src=secret", "--secret", "id=e,env=HIDDEN", "--ssh", f"default={agent.getsockname()}",
                      ".", env={"HIDDEN": "herring"}).stderr  # fmt: skip
    assert "swordfish" in said
    assert "is herring" in said
    assert "secret id=" not in barque("build", "--secret", "id=nothing,src=absent", ".", code=1).stderr


def test_dockerfiles_come_on_standard_input_and_from_elsewhere(barque: Run, folder: Path, engine: EngineUnderTest) -> None:
    write(folder, {"a.txt": "of the folder\n", "more/f": "named"})
    (folder.parent / "Other").write_text("FROM busybox\nCOPY a.txt /\nRUN --mount=from=named,target=/n cat /a.txt /n/f\n")
    said = barque("build", "-f", "../Other", "--build-context", "named=more", ".").stderr
    assert "of the folder" in said and "named" in said
    said = barque("build", "-f", "-", ".", input="FROM busybox\nCOPY a.txt /\nRUN cat /a.txt && echo piped\n").stderr
    assert "piped" in said
    said = barque("build", "-t", "alone", "-", input="FROM busybox\nRUN echo alone\n").stderr
    assert "alone" in said
    write(folder, {"Here": "FROM busybox\nCOPY a.txt /\nRUN echo packed && cat /a.txt\n"})
    archive = subprocess.run(["tar", "cz", "-C", str(folder), "."], capture_output=True, check=True).stdout
    said = barque("build", "-f", "Here", "-", input=archive, text=False).stderr.decode()
    assert "packed" in said and "of the folder" in said
    for words, message in (
        (("build", "absent"), 'path "absent" not found'),
        (("build", "."), "open Dockerfile: no such file or directory"),
        (("build", "-f", "-", "-"), "can't use stdin for both build context and dockerfile"),
        (("build", "--network", "mine", "-f", "../Other", "."), "network mode 'mine' not supported"),
        (("build", "-o", "type=odd", "-f", "../Other", "."), "unsupported output type 'odd'"),
        (("build", "--builder", "other", "-f", "../Other", "."), 'no builder "other" found'),
        (("build", "--progress", "loud", "-f", "../Other", "."), "invalid progress mode"),
    ):
        assert message in barque(*words, code=1).stderr, words


def test_what_fails_is_shown_with_its_last_output(barque: Run, folder: Path) -> None:
    write(folder, {"Dockerfile": "FROM busybox\nRUN echo before && exit 3\n"})
    said = barque("build", "--no-cache", ".", code=1).stderr
    assert re.search(r"------\n > \[2/2\] RUN echo before && exit 3:\n\d\.\d+ before\n------\n", said), said
    assert re.search(r"^Dockerfile:2\n-{20}\n +1 \|     FROM busybox\n +2 \| >>> RUN echo before && exit 3\n", said, re.MULTILINE), said
    assert said.endswith(
        'ERROR: failed to solve: process "/bin/sh -c echo before && exit 3" did not complete successfully: exit code: 3\n'
    )


def test_each_step_explains_itself(barque: Run, folder: Path) -> None:
    text = "FROM busybox\nARG WORD\nRUN echo $WORD explained\nCOPY d /d\nRUN cat /d/a\n"
    write(folder, {"Dockerfile": text, "d/a": f"{os.getpid()}", "d/b": "b"})
    first = barque("build", "--explain", "--build-arg", "WORD=1", ".").stderr
    assert len(re.findall("explain: not in the cache: this (step|instruction) has not been run", first)) == 3, first
    second = barque("build", "--explain", "--build-arg", "WORD=1", ".").stderr
    assert len(re.findall(r"explain: in the cache: made at \S+Z, used 2 times\n", second)) == 3, second
    write(folder, {"d/b": "changed"})
    said = barque("build", "--explain=json", "--build-arg", "WORD=1", ".").stdout
    run, copy, last = json.loads(said)
    assert (run["step"], run["cached"]) == ("[2/4] RUN echo 1 explained", True)
    assert copy["reasons"] == [{"kind": "file", "name": "d/b", "text": "file d/b changed"}]
    assert [one["kind"] for one in last["reasons"]] == ["root"]
    said = barque("build", "--explain", "--progress=quiet", "--build-arg", "WORD=2", ".").stderr
    assert " => [2/4] RUN echo 2 explained\n    not in the cache: the variable or argument WORD changed\n" in said, said
    write(folder, {"Dockerfile": text.replace("$WORD explained", "$WORD otherwise")})
    said = barque("build", "--explain", "--build-arg", "WORD=2", ".").stderr
    assert "this instruction has not been run; the last one at its place was RUN echo 2 explained" in said, said
    said = barque("build", "--explain", "--no-cache", ".").stderr
    assert said.count("explain: not in the cache: --no-cache was given") == 3, said


def test_what_a_copy_may_miss_is_an_extension_that_is_switched_on(barque: Run, folder: Path) -> None:
    text = "FROM busybox\nCOPY --optional absent absent/*.x there* /d/\nCOPY --optional none /n\nRUN ls /d; test ! -e /n\n"
    write(folder, {"Dockerfile": "# syntax=barque/dockerfile:1\n" + text, "there": "x"})
    assert re.search(r"^#\d+ \S+ there$", barque("build", ".").stderr, re.MULTILINE)
    (folder / "there").unlink()
    write(folder, {"absent/a.x": "x"})
    assert re.search(r"^#\d+ \S+ a.x$", barque("build", ".").stderr, re.MULTILINE)
    write(folder, {"Dockerfile": text})
    assert "unknown flag: --optional" in barque("build", ".", code=1).stderr


def test_two_builds_are_compared(barque: Run, folder: Path, engine: EngineUnderTest) -> None:
    write(folder, {"Dockerfile": "FROM busybox\nRUN echo a > /a\nCOPY d /d\nWORKDIR /w\n", "d/f": "f"})
    said = barque("build", "--verify-reproducible", "-t", "repro", ".").stderr
    assert "The build is reproducible" in said
    assert engine.docker("image", "inspect", "-f", "{{.Config.WorkingDir}}", "repro").strip() == "/w"
    write(folder, {"Dockerfile": "FROM busybox\nRUN echo a > /a\nRUN mkdir /n && cat /proc/sys/kernel/random/uuid > /n/id\n"})
    said = barque("build", "-q", "--verify-reproducible", "-t", "differs", ".", code=1).stderr
    assert re.search(r"not reproducible: layer 3 \(RUN /bin/sh -c mkdir /n .*\): the content of /n/id differs \(37 bytes", said), said
    assert engine.docker("images", "-q", "differs") == ""


def test_the_cache_is_shown_and_pruned(barque: Run, folder: Path) -> None:
    write(folder, {"Dockerfile": f"FROM busybox\nRUN head -c 123456 /dev/zero > /z; echo {os.getpid()}\n"})
    barque("build", "-o", "type=cacheonly", ".")
    rows = barque("buildx", "du").stdout
    assert rows.startswith("ID\t\t\t\t\t\tRECLAIMABLE\tSIZE\t\tLAST ACCESSED\n")
    assert re.search(r"^\w+ +\ttrue \t\t123\.\dkB +\t.* ago$", rows, re.MULTILINE), rows
    assert f"RUN head -c 123456 /dev/zero > /z; echo {os.getpid()}" in barque("buildx", "du", "--verbose").stdout
    assert re.search(r"^default\* +docker +\n \\_ default +\\_ default +running +v", barque("buildx", "ls").stdout, re.MULTILINE)
    assert "Status:           running\n" in barque("buildx", "inspect").stdout
    assert barque("buildx", "prune", "-f", "--filter", "until=24h").stdout == "Total:\t0B\n"
    assert "Are you sure" in barque("buildx", "prune", input="n\n").stdout
    removed = barque("buildx", "prune", "-f", "--filter", "type=regular").stdout
    assert re.search(r"^Total:\t[1-9]", removed, re.MULTILINE), removed
    assert "123." not in barque("buildx", "du").stdout
    assert barque("builder", "prune", "-af").stdout.splitlines()[-1].startswith("Total reclaimed space: ")


def test_progress_is_also_json_and_nothing(barque: Run, folder: Path) -> None:
    write(folder, {"Dockerfile": "FROM busybox\nRUN echo said\n"})
    rows = [json.loads(line) for line in barque("build", "--no-cache", "--progress=rawjson", ".").stderr.splitlines()]
    vertexes = [one for row in rows for one in row.get("vertexes", [])]
    run = next(one for one in vertexes if one["name"] == "[2/2] RUN echo said" and "completed" in one)
    assert any(log["vertex"] == run["digest"] and log["data"] == "c2FpZAo=" for row in rows for log in row.get("logs", []))
    assert barque("build", "--progress=quiet", ".").stderr == ""


def test_a_terminal_shows_a_table_that_is_redrawn(barque: Run, folder: Path, engine: EngineUnderTest) -> None:
    write(folder, {"Dockerfile": "FROM busybox\nENV a b\nRUN echo drawn; sleep 1\n"})
    master, slave = os.openpty()
    environment = {**engine.environment, "PYTHONPATH": str(SOURCE), "TERM": "xterm", "NO_COLOR": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "barque", "build", "--no-cache", "."], cwd=folder, env=environment, stderr=slave, stdout=slave
    )
    os.close(slave)
    seen = bytearray()

    def read() -> None:
        try:
            while data := os.read(master, 4096):
                seen.extend(data)
        except OSError:
            return

    reader = threading.Thread(target=read)
    reader.start()
    assert child.wait(60) == 0
    reader.join(10)
    os.close(master)
    text = seen.decode()
    assert " => => # drawn" in text
    assert " => WARN: LegacyKeyValueFormat: " in text
    assert re.search(r"\x1b\[\d+A", text)
    assert re.search(r"\[\+\] Building \d\.\ds \((\d+)/\1\) FINISHED +docker:default", text)
    # The cursor is shown again, and the warnings come below.
    assert text.rpartition("\x1b[?25h")[2].splitlines()[1] == " 1 warning found (use barque --debug to expand):"


def test_an_interrupt_ends_the_build_and_its_steps(folder: Path, engine: EngineUnderTest) -> None:
    mark = f"9{os.getpid()}"
    write(folder, {"Dockerfile": f"FROM busybox\nRUN echo begun; sleep {mark}\n"})
    environment = {**engine.environment, "PYTHONPATH": str(SOURCE)}
    # What runs in a shell's background does not hear of SIGINT, nor do its children.
    words = ["env", "--default-signal=INT", sys.executable, "-m", "barque", "build", "--no-cache", "--progress=plain", "."]
    child = subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: running(f"sleep {mark}"), "the step runs", 60)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, said
    assert "CANCELED" in said
    assert said.endswith("ERROR: failed to solve: Canceled: context canceled\n")
    until(lambda: not running(f"sleep {mark}"), "the step is ended", 20)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_command_leaves_no_files_of_it(
    how: signal.Signals, folder: Path, engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mark, temporary = f"8{os.getpid()}{how}", tmp_path_factory.mktemp("temporary")
    environment = {**engine.environment, "PYTHONPATH": str(SOURCE), "TMPDIR": str(temporary)}
    words = ["env", f"--default-signal={how}", sys.executable, "-m", "barque", "build", "--no-cache", "-"]
    child = subprocess.Popen(words, cwd=folder, env=environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert child.stdin is not None
        child.stdin.write(f"FROM busybox\nRUN sleep {mark}\n")
        child.stdin.close()
        until(lambda: running(f"sleep {mark}"), "the step runs", 60)
        assert os.listdir(temporary)
        child.send_signal(how)
        assert child.wait(60) == -how
    finally:
        child.kill()
        child.wait()
    assert os.listdir(temporary) == []
    until(lambda: not running(f"sleep {mark}"), "the step is ended", 20)


def test_checks_outlines_and_targets_are_shown(barque: Run, folder: Path) -> None:
    write(folder, {"Dockerfile": "FROM busybox AS one\n# WORD is said\nARG WORD=w\nENV a b\n"})
    found = barque("build", "--check", ".", code=1).stdout
    assert "Check complete, 1 warning has been found!" in found
    assert "WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/" in found
    assert "   4 | >>> ENV a b" in found
    assert re.search(r"^WORD +w +is said$", barque("build", "--call=outline", ".").stdout, re.MULTILINE)
    assert "one (default)" in barque("build", "--call=targets", ".").stdout
    write(folder, {"Dockerfile": "FROM busybox\nCOPY --from=three x /\nWORKDIR\n"})
    assert "WORKDIR requires exactly one argument" in barque("build", "--check", ".", code=1).stderr
    write(folder, {"Dockerfile": "# check=error=true\nFROM busybox\nENV a b\n"})
    failed = barque("build", "--check", ".", code=1)
    assert "ERROR: lint violation found for rules: LegacyKeyValueFormat" in failed.stderr

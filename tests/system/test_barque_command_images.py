"""Our command beside docker's: the same words give the same output, errors, exit codes and files."""

import contextlib
import json
import os
import pty
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registries import PASSWORD, USER, RegistryUnderTest
from under_test import EngineUnderTest

pytestmark = pytest.mark.system

_AGE = re.compile(r"(?:Less than a second|About an? \w+|\d+ \w+) ago *")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryUnderTest]:
    """Give a registry with passwords."""
    made = RegistryUnderTest(tmp_path_factory.mktemp("secured"), passwords=True)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def image(engine: EngineUnderTest, registry: RegistryUnderTest) -> Iterator[str]:
    """Give an image that the registry has too."""
    name = f"{registry.host}/beside/box:1"
    engine.docker("tag", "busybox", name)
    engine.docker("push", "-q", name)
    yield name
    engine.docker("rmi", name, check=False)


class Both:
    """Runs one command line with docker and with barque, each with a configuration folder of its own."""

    def __init__(self, engine: EngineUnderTest, folder: Path) -> None:
        self.engine = engine
        self.folders = {name: folder / name for name in ("docker", "barque")}

    def run(self, *words: str, same_errors: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
        answers = {}
        for name, folder in self.folders.items():
            words_of = [w.replace("CONFIG", str(folder)) for w in words]
            command = ["docker"] if name == "docker" else self._barque()
            environment = {**self.engine.environment, "DOCKER_CONFIG": str(folder)}
            settings = {"capture_output": True, "text": True, "timeout": 60, "env": environment, **options}
            done = subprocess.run([*command, *words_of], **settings)  # type: ignore[call-overload]
            for stream in ("stdout", "stderr"):
                text = getattr(done, stream).replace(str(folder), "CONFIG").replace("docker", "barque")
                if _AGE.search(text):
                    # An age goes on between the two, and its column with it.
                    text = re.sub(" {2,}", "  ", _AGE.sub("AGE  ", text))
                setattr(done, stream, "\n".join(line for line in text.splitlines() if line.strip()))
            answers[name] = done
        one, other = answers["docker"], answers["barque"]
        assert (one.returncode, one.stdout) == (other.returncode, other.stdout), (words, one.stderr, other.stderr)
        if same_errors:
            assert one.stderr == other.stderr, words
        return other

    def _barque(self) -> list[str]:
        import sys

        return [sys.executable, "-m", "barque"]

    def content(self, path: str) -> object:
        one, other = ((folder / path).read_text() for folder in self.folders.values())
        assert one == other
        return json.loads(other)


@pytest.fixture
def both(engine: EngineUnderTest, tmp_path: Path) -> Both:
    """Give both commands."""
    return Both(engine, tmp_path)


def test_pull_and_push_print_the_same(both: Both, image: str) -> None:
    name = image.rpartition(":")[0]
    for words in (
        ("pull", image), ("pull", "-q", image), ("pull", "-a", name), ("pull", "-a", image), ("pull", f"{name}:nosuch"),
        ("push", image), ("push", "-q", image), ("push", "-a", name), ("push", "-a", image), ("push", f"{name}:nosuch"),
        ("push", name), ("push", "--platform", "linux/amd64", image), ("push", "--platform", "linux/arm64", image),
        ("pull", "Upper"), ("push", "a b"), ("pull", "scratch"),
    ):  # fmt: skip
        both.run(*words)


def test_transfers_are_shown_on_a_terminal_the_same(both: Both, engine: EngineUnderTest, image: str) -> None:
    """Every byte, cursor movements and all."""
    for words, shown in ((("pull", image), "Already exists"), (("push", image), "Layer already exists"), (("pull", f"{image}0"), "not found")):
        said = []
        for command in (["docker"], both._barque()):
            if words == ("pull", image):
                engine.docker("rmi", image)
            said.append(_on_a_terminal([*command, *words], engine.environment))
        assert said[0] == said[1]
        assert shown in said[1][1]


def _on_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and all that it wrote."""
    ours, terminal = pty.openpty()
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        written = b""
        # The last writer's end is told as an error.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                written += piece
    os.close(ours)
    return process.returncode, written.decode()


def test_content_trust_is_refused_in_words(both: Both, engine: EngineUnderTest, image: str) -> None:
    for verb in ("pull", "push"):
        words = [*both._barque(), verb, "--disable-content-trust=false", image]
        result = subprocess.run(words, env=engine.environment, capture_output=True, text=True)
        assert result.returncode == 1
        assert "content trust (Notary v1) is not supported" in result.stderr


def test_login_and_logout_print_and_keep_the_same(both: Both, secured: RegistryUnderTest) -> None:
    both.run("login", "-u", USER, "--password-stdin", secured.host, input="wrong")
    both.run("login", "-u", USER, "-p", "x", "--password-stdin", secured.host, input="x")
    both.run("login", "--password-stdin", secured.host, input="x")
    both.run("login", secured.host, input="")
    both.run("login", "-u", USER, "--password-stdin", secured.host, input=PASSWORD + "\n")
    kept = both.content("config.json")
    assert list(kept["auths"]) == [secured.host]  # type: ignore[index]
    assert stat.S_IMODE((both.folders["barque"] / "config.json").stat().st_mode) == 0o600
    both.run("login", secured.host)
    both.run("logout", secured.host)
    assert both.content("config.json") == {"auths": {}}
    both.run("logout", secured.host)


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_credential_helper_keeps_what_login_gives_it(
    both: Both, secured: RegistryUnderTest, tmp_path: Path, engine: EngineUnderTest, key: str
) -> None:
    helpers = tmp_path / "bin"
    helpers.mkdir()
    helper = helpers / "docker-credential-test"
    helper.write_text(
        f"#!/bin/sh\nkept={tmp_path}/kept\ncase $1 in store) cat >$kept;; erase) rm -f $kept;;\n"
        "get) [ -e $kept ] || { echo 'credentials not found in native keychain'; exit 1; }; cat $kept;; esac\n"
    )
    helper.chmod(0o755)
    environment = {**engine.environment, "PATH": f"{helpers}:{engine.environment['PATH']}"}
    for folder in both.folders.values():
        folder.mkdir(exist_ok=True)
        helped = "test" if key == "credsStore" else {secured.host: "test"}
        (folder / "config.json").write_text(json.dumps({key: helped}))
    for name, command in (("docker", ["docker"]), ("barque", both._barque())):
        settings = {"env": {**environment, "DOCKER_CONFIG": str(both.folders[name])}, "text": True, "timeout": 60}
        words = [*command, "login", "-u", USER, "--password-stdin", secured.host]
        done = subprocess.run(words, input=PASSWORD, capture_output=True, **settings)  # type: ignore[call-overload]
        assert (done.returncode, done.stdout, done.stderr) == (0, "Login Succeeded\n", "")
        assert json.loads((tmp_path / "kept").read_text())["Secret"] == PASSWORD
        asked = subprocess.run([*command, "pull", f"{secured.host}/x"], capture_output=True, **settings)  # type: ignore[call-overload]
        assert "manifest unknown" in asked.stderr
        subprocess.run([*command, "logout", secured.host], check=True, capture_output=True, **settings)  # type: ignore[call-overload]
        assert not (tmp_path / "kept").exists()


def test_search_prints_the_same(both: Both, registry: RegistryUnderTest, image: str) -> None:
    for words in (
        (f"{registry.host}/beside",), ("--format", "json", f"{registry.host}/beside"), ("--limit", "101", "x"),
        ("--format", "{{.Name}}:{{.StarCount}}", f"{registry.host}/beside"), ("--filter", "nosuch=1", "x"),
        ("--filter", "stars=x", "x"), ("--no-trunc", f"{registry.host}/beside"), ("http://x",),
    ):  # fmt: skip
        both.run("search", *words)


def test_manifest_lists_are_made_kept_and_sent_the_same(both: Both, registry: RegistryUnderTest, image: str) -> None:
    target, other = f"{registry.host}/beside/list:1", f"{registry.host}/beside/elsewhere:1"
    folder = f"manifests/{target.replace(':', '-').replace('/', '_')}"
    both.run("manifest", "create", "--insecure", target, image)
    both.run("manifest", "create", "--insecure", target, image)
    kept = both.content(f"{folder}/{image.replace(':', '-').replace('/', '_')}")
    assert kept["Ref"] == image  # type: ignore[index]
    for words in (
        ("annotate", "--arch", "arm64", "--variant", "v8", "--os-features", "a,b", "--os-version", "3", target, image),
        ("annotate", "--arch", "nosuch", target, image),
        ("annotate", "--arch", "arm64", target, f"{image}0"),
        ("inspect", target), ("inspect", "-v", target), ("inspect", target, image), ("inspect", target, f"{image}0"),
        ("inspect", "--insecure", image), ("inspect", "--insecure", "-v", image),
        ("inspect", "--insecure", f"{image}0"),
        ("push", "--insecure", target), ("push", "--insecure", "-p", target), ("push", "--insecure", "-p", target),
        ("inspect", "--insecure", target), ("inspect", "--insecure", "-v", target),
        ("create", "--insecure", other, image), ("push", "--insecure", other),
        ("rm", other, f"{other}0"),
    ):  # fmt: skip
        both.run("manifest", *words)


def test_images_as_a_tree_are_shown_the_same(both: Both, engine: EngineUnderTest, image: str) -> None:
    used = engine.docker("create", "busybox")
    for _ in range(2):
        engine.docker("commit", "-m", "moved", used, "beside/a-name-that-is-longer-than-there-is-room-for-it:1")
    for words in ((), ("-a",), (image,), ("nosuch",), ("-f", "dangling=true"), ("-q",), ("--digests",), ("--no-trunc",),
                  ("--format", "x")):  # fmt: skip
        both.run("images", "--tree", *words)
    lines = engine.barque("images", "--tree", image).splitlines()
    assert lines[-1].split()[:2] == ["└─", "linux/amd64"]
    engine.docker("rm", used)
    engine.docker("rmi", "beside/a-name-that-is-longer-than-there-is-room-for-it:1")
    engine.docker("image", "prune", "-f")


def test_images_are_listed_and_shown_the_same(both: Both, engine: EngineUnderTest, image: str) -> None:
    every = "{{.ID}} {{.Repository}} {{.Tag}} {{.Digest}} {{.Size}} {{.CreatedAt}} {{.SharedSize}} {{.UniqueSize}}"
    for words in (
        ("images", image), ("images", "--digests", image), ("images", "--no-trunc", image), ("images", "-q", image),
        ("images", "--format", every, image), ("images", "--format", "table {{.ID}}\t{{.Digest}}", image),
        ("images", "--format", "{{.Nosuch}}", image), ("images", "--format", "{{", image), ("images", "nosuch"),
        ("images", "-f", "reference=*/beside/b*:1"), ("images", "-f", "reference=[", "-q"), ("images", "-f", "dangling=true"),
        ("images", "-f", "dangling=x"), ("images", "-f", "label=nosuch"), ("images", "-f", "since=nosuch"),
        ("images", "-f", f"before={image}"), ("images", "-f", "until=1h"), ("images", "-f", "until=x"), ("images", "-f", "nosuch=1"),
        ("images", "-f", "nosuch"), ("image", "ls", "-f", f"reference={image}"), ("image", "list", image),
        ("history", image), ("history", "-q", image), ("history", "-q", "--no-trunc", image), ("history", "--no-trunc", image),
        ("history", "--format", "{{.ID}} {{.CreatedAt}} {{.CreatedBy}} {{.Size}} {{.Comment}}", image),
        ("history", "--platform", "linux/amd64", image), ("history", "--platform", "linux/arm64", image),
        ("history", "--platform", "a/b/c/d", image), ("history", "nosuch"), ("history",), ("history", "UPPER"),
        ("image", "inspect", image), ("image", "inspect", "-f", "{{.Os}}", image, "nosuch"),
        ("image", "inspect", "--platform", "linux/arm64", image), ("image", "inspect", "UPPER"), ("image", "inspect"),
        ("system", "df"), ("system", "df", "-v"), ("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}} {{.Reclaimable}}"),
        ("system", "df", "-v", "--format", "{{range .Images}}{{.Repository}}:{{.Tag}} {{.ID}} {{.UniqueSize}} {{.Containers}}|{{end}}"),
        ("system", "df", "-v", "--format", "{{json .Volumes}} {{range .Containers}}{{.ID}} {{.Size}}{{end}}"),
    ):  # fmt: skip
        both.run(*words)


def test_images_go_into_archives_and_come_out_the_same(both: Both, engine: EngineUnderTest, image: str, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_text("no archive")
    for folder in both.folders.values():
        folder.mkdir()
    both.run("save", "-o", "CONFIG/a.tar", image, "busybox")
    assert len({(folder / "a.tar").read_bytes() for folder in both.folders.values()}) == 1
    for words in (
        ("load", "-i", "CONFIG/a.tar"), ("load", "-q", "-i", "CONFIG/a.tar"), ("load", "--platform", "linux/amd64", "-i", "CONFIG/a.tar"),
        ("load", "--platform", "linux/arm64", "-i", "CONFIG/a.tar"), ("load", "--platform", "a/b/c/d", "-i", "CONFIG/a.tar"),
        ("load", "-i", "CONFIG/nosuch"), ("load", "-i", str(noise)), ("load", "x"),
        ("save", "--platform", "linux/arm64", "-o", "CONFIG/b.tar", image), ("save", "-o", "CONFIG/b.tar", "nosuch"),
        ("save", "-o", "CONFIG", image), ("save", "-o", "/no/such/b.tar", image), ("save",), ("save", "-o", "CONFIG/b.tar", "UPPER"),
        ("import", "CONFIG/nosuch"), ("import", str(noise)), ("import", "-c", "nosuch x", str(noise)), ("import", str(noise), "UPPER"),
        ("import", str(noise), "x@sha256:" + "0" * 64), ("import", "--platform", "a/b/c/d", str(noise)),
        ("export", "nosuch"), ("export", "-o", "CONFIG", "nosuch"), ("export", "-o", "/no/such/x", "nosuch"), ("export",),
    ):  # fmt: skip
        both.run(*words)
    assert not (both.folders["barque"] / "b.tar").exists()


def test_archives_are_neither_written_to_nor_read_from_a_terminal(both: Both, engine: EngineUnderTest, image: str) -> None:
    ours, terminal = pty.openpty()
    try:
        for words in (["save", image], ["export", "nosuch"], ["load"]):
            said = []
            for command in (["docker"], both._barque()):
                done = subprocess.run([*command, *words], env=engine.environment, stdin=terminal, stdout=terminal,
                                      stderr=subprocess.PIPE, text=True, timeout=60)  # fmt: skip
                said.append((done.returncode, done.stderr))
            assert said[0] == said[1]
            assert said[1][0] == 1
    finally:
        os.close(ours)
        os.close(terminal)


def test_images_are_named_committed_and_removed_the_same(both: Both, engine: EngineUnderTest, image: str) -> None:
    engine.docker("create", "--name", "user", image)
    engine.docker("image", "prune", "-f")
    for words in (
        ("tag", image, "again:1"), ("tag", image, "UPPER"), ("tag", image, ""), ("tag", image, "a:b:c"), ("tag", "nosuch", "x"),
        ("tag", image, "x@sha256:" + "0" * 64), ("tag", image), ("image", "tag", image, "f" * 64),
        ("commit", "nosuch"), ("commit",), ("commit", "nosuch", "UPPER"), ("commit", "user", "UPPER"), ("commit", "-c", "run x", "user"),
        ("commit", "user", "x@sha256:" + "0" * 64),
        ("rmi", "nosuch"), ("rmi", "-f", "nosuch", "nosuch2"), ("rmi", "nosuch", "UPPER"), ("rmi",), ("rmi", "0" * 64),
        ("rmi", "--platform", "linux/arm64", image), ("rmi", "--platform", "a/b/c/d", image), ("image", "rm", "nosuch"),
        ("image", "prune", "-f"), ("image", "prune", "-f", "--filter", "until=x"), ("image", "prune", "-f", "--filter", "nosuch=1"),
        ("image", "prune", "--filter", "nosuch"), ("image", "prune", "x"),
    ):  # fmt: skip
        both.run(*words)
    for words in (("image", "prune"), ("image", "prune", "-a"), ("image", "prune", "--filter", "until=1h")):
        both.run(*words, input="n\n")
    engine.docker("rm", "user")
    engine.docker("rmi", "again:1")


def test_a_missing_image_is_pulled_by_run(engine: EngineUnderTest, image: str) -> None:
    engine.docker("rmi", image)
    assert engine.barque("run", "--rm", image, "echo", "hi") == "hi"
    engine.docker("rmi", image)
    refused = subprocess.run([*Both(engine, Path("/nonexistent"))._barque(), "run", "--pull", "never", image],
                             env=engine.environment, capture_output=True, text=True)  # fmt: skip
    assert refused.returncode == 125

"""Flags of COPY and ADD, arguments that nobody declares, and Compose's builds, by the real clients."""

import re
import subprocess
from pathlib import Path

import pytest

from plugins import Run, barque_in, docker_in, write
from under_test import EngineUnderTest

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with the plugins, in the folder `tmp_path`."""
    return docker_in(engine, tmp_path)


def built(docker: Run, folder: Path, text: str, command: str, *flags: str) -> str:
    """Build a Dockerfile and return what a command in its image says."""
    (folder / "Dockerfile").write_text(text)
    docker("buildx", "build", "-t", "flagged", *flags, ".")
    return docker("run", "--rm", "flagged", "sh", "-c", command).stdout


def test_sources_keep_their_parents_or_lose_some_of_them(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, {"x/a.txt": "", "x/b.md": "", "y/a.txt": "", "deep/one/two/a.txt": "", "deep/one/c.txt": ""})
    said = built(docker, tmp_path, """
FROM busybox
COPY --parents ./x/a.txt ./y/a.txt /plain/
COPY --parents deep/./one/*/a.txt /cut/
COPY --parents **/*.txt /all/
COPY --exclude=*.md --exclude=*b* x /some/
COPY --parents --exclude=**/two deep /less/
ADD --exclude=a.* x y /added/
""", "cd / && find plain cut all some less added -type f | sort")  # fmt: skip
    assert said.split() == [
        "added/b.md", "all/deep/one/c.txt", "all/deep/one/two/a.txt", "all/x/a.txt", "all/y/a.txt", "cut/one/two/a.txt",
        "less/deep/one/c.txt", "plain/x/a.txt", "plain/y/a.txt", "some/a.txt",
    ]  # fmt: skip


def test_modes_are_numbers_or_words(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, {"d/plain": "", "d/program": ""})
    (tmp_path / "d/plain").chmod(0o600)
    (tmp_path / "d/program").chmod(0o700)
    said = built(docker, tmp_path, """
FROM busybox
COPY --chmod=u=rwX,go=rX d /words/
COPY --chmod=a-w,+x --chown=33:34 d/plain /less
COPY --link --chmod=0751 --chown=www d/plain /linked
""", "stat -c '%a %u:%g %n' /words/plain /words/program /less /linked")  # fmt: skip
    assert said.splitlines() == ["644 0:0 /words/plain", "755 0:0 /words/program", "511 33:34 /less", "751 33:33 /linked"]


def test_proxies_need_no_declaration_and_leave_no_trace(docker: Run, tmp_path: Path) -> None:
    names = [name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY") for name in (upper, upper.lower())]
    text = f"FROM busybox\nRUN env | grep -i _proxy= | sort > /proxies; echo {len(names)}\n"
    given = [f"--build-arg={name}=http://{name}.test" for name in names]
    said = built(docker, tmp_path, text, "cat /proxies; env | grep -ci _proxy=; true", *given)
    assert said.splitlines() == [*sorted(f"{name}=http://{name}.test" for name in names), "0"]
    assert ".test" not in docker("history", "--no-trunc", "flagged").stdout
    again = docker("buildx", "build", "--build-arg=http_proxy=http://other.test", ".").stderr
    assert again.count("CACHED") == 2, again


def test_platforms_are_arguments_that_are_declared(docker: Run, tmp_path: Path) -> None:
    names = [f"{kind}{part}" for kind in ("TARGET", "BUILD") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")]
    text = (
        f"FROM --platform=$BUILDPLATFORM busybox AS b\nRUN echo \"$TARGETOS\" > /undeclared\nARG {' '.join(names)}\n"
        f"RUN for one in {' '.join(names)}; do eval echo $one=\\$$one; done > /said\nFROM scratch\nCOPY --from=b /said /undeclared /\n"
    )
    (tmp_path / "Dockerfile").write_text(text)
    docker("buildx", "build", "--platform=linux/arm/v7", "--output=out", ".")
    found = dict(line.split("=", 1) for line in (tmp_path / "out/said").read_text().splitlines())
    assert (tmp_path / "out/undeclared").read_text() == "\n"
    assert [found[f"TARGET{part}"] for part in ("PLATFORM", "OS", "ARCH", "VARIANT")] == ["linux/arm/v7", "linux", "arm", "v7"]
    assert found["BUILDPLATFORM"] == f"{found['BUILDOS']}/{found['BUILDARCH']}"


def test_arguments_are_buildkit_s_own(docker: Run, tmp_path: Path) -> None:
    cached = "FROM busybox\nARG WORD\nRUN --mount=type=cache,target=/c,id=spaces touch /c/$WORD && ls /c > /said\n"
    for word, space, seen in (("a", "one", "a"), ("b", "one", "a\nb"), ("c", "two", "c")):
        flags = (f"--build-arg=WORD={word}", f"--build-arg=BUILDKIT_CACHE_MOUNT_NS={space}")
        assert built(docker, tmp_path, cached, "cat /said", *flags) == f"{seen}\n"
    docker("buildx", "build", "--build-arg=BUILDKIT_MULTI_PLATFORM=1", "--output=out", ".")
    assert [one.name.split("_")[0] for one in (tmp_path / "out").iterdir()] == ["linux"]


@pytest.mark.parametrize("client", ["classic", "buildx", "barque"])
def test_commands_have_what_the_client_asks_for(client: str, docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    asked = ["--shm-size=128m", "--ulimit=nofile=100:200", "--add-host=there:1.2.3.4", "--add-host=up:host-gateway", "--network=none", "-t", "asked", "."]
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN { df -k /dev/shm | tail -n1 | awk '{print $2}'; ulimit -n; grep -E 'there|up$' /etc/hosts; ls /sys/class/net; } > /said\n"
    )
    if client == "classic":
        subprocess.run(["docker", "build", *asked], env={**engine.environment, "DOCKER_BUILDKIT": "0"}, cwd=tmp_path, check=True, capture_output=True)
    elif client == "buildx":
        docker("buildx", "build", "--no-cache", *asked)
    else:
        barque_in(engine, tmp_path, tmp_path / ".docker")("build", "--no-cache", *asked)
    gateway = docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge").stdout.strip()
    size, files, there, up, device = docker("run", "--rm", "asked", "cat", "/said").stdout.splitlines()
    assert (size, files, there.split(), up.split(), device) == ("131072", "100", ["1.2.3.4", "there"], [gateway, "up"], "lo")


@pytest.mark.parametrize("client", ["buildx", "barque"])
def test_some_stages_alone_are_built_without_the_cache(client: str, docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    barque = barque_in(engine, tmp_path, tmp_path / ".docker")
    (tmp_path / "Dockerfile").write_text(f"FROM busybox AS one\nRUN echo {client} 1 > /1\nFROM busybox AS two\nRUN echo {client} 2 > /2\nFROM one\nCOPY --from=two /2 /\n")

    def ran(*words: str) -> list[str]:
        done = docker("buildx", "build", *words, ".") if client == "buildx" else barque("build", "--progress=plain", *words, ".")
        cached = {line.partition(" ")[0] for line in done.stderr.splitlines() if line.endswith(" CACHED")}
        steps = re.findall(r"^(#\d+) \[(one|two) 2/2\]", done.stderr, re.MULTILINE)
        return sorted({name for number, name in steps if number not in cached})

    assert ran() == ["one", "two"]
    assert ran() == []
    assert ran("--no-cache-filter=two") == ["two"]
    assert ran("--no-cache-filter=one,two") == ["one", "two"]


def test_insecure_commands_need_leave_and_have_all_rights(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs t /m && echo rights: && grep CapEff /proc/self/status\n"
        "RUN grep CapEff /proc/self/status; ! mount -t tmpfs t /m\n"
    )
    assert "security.insecure is not allowed" in docker("buildx", "build", ".", code=1).stderr
    said = docker("buildx", "build", "--allow", "security.insecure", ".").stderr
    all_rights, rights = (int(text, 16) for text in re.findall(r"CapEff:\s*(\w+)", said.replace("grep CapEff", "")))
    assert rights < all_rights and bin(all_rights).count("1") > 30
    # Also where it is in the cache.
    assert "security.insecure is not allowed" in docker("buildx", "build", ".", code=1).stderr


def test_health_checks_have_five_flags(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nHEALTHCHECK --interval=7s --timeout=6s --start-period=5s --start-interval=4s --retries=3 CMD true\n"
    )
    docker("buildx", "build", "-t", "flagged", ".")
    found = docker("image", "inspect", "-f", "{{json .Config.Healthcheck}}", "flagged").stdout
    expected = '{"Test":["CMD-SHELL","true"],"Interval":7000000000,"Timeout":6000000000,"StartPeriod":5000000000,"StartInterval":4000000000,"Retries":3}'
    assert found.strip() == expected


def test_compose_builds_three_services(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, {
        "compose.yaml": """
name: three
services:
  base:
    build:
      context: base
      args: {WORD: of-the-file}
      labels: {made.by: compose}
  front:
    image: three/front:1
    build:
      context: .
      dockerfile_inline: |
        FROM busybox AS early
        RUN echo early > /stage
        FROM early AS late
        RUN --mount=type=secret,id=token test "$(cat /run/secrets/token)" = secret-word && echo late > /stage
        FROM late
        RUN exit 3
      target: late
      secrets: [token]
      network: none
  back:
    build:
      context: back
      dockerfile: Own
      additional_contexts: {shared: ./shared}
      cache_from: ["three/front:1"]
      tags: ["three/back:2"]
secrets:
  token: {file: ./token}
""",
        "token": "secret-word", "base/Dockerfile": "FROM busybox\nARG WORD=none\nRUN echo $WORD > /word\n",
        "back/Own": "FROM busybox\nCOPY --from=shared file /file\n", "shared/file": "shared\n",
    })  # fmt: skip
    docker("compose", "build", "--build-arg", "UNUSED=1")
    for image, path, text in (("three-base", "/word", "of-the-file"), ("three/front:1", "/stage", "late"), ("three-back", "/file", "shared")):
        assert docker("run", "--rm", image, "cat", path).stdout == f"{text}\n"
    ids = docker("image", "inspect", "-f", "{{.Id}}", "three-back", "three/back:2").stdout.split()
    assert ids[0] == ids[1]
    assert docker("image", "inspect", "-f", '{{index .Config.Labels "made.by"}}', "three-base").stdout == "compose\n"

"""Each key of `RUN --mount`, by real buildx: what a command sees, and what stays."""

import os
import socket
from pathlib import Path

import pytest

from plugins import Run, docker_in
from under_test import EngineUnderTest

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with the plugins, in the folder `tmp_path`."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("of the context\n")
    (tmp_path / "secret").write_text("hidden")
    return docker_in(engine, tmp_path)


def build(docker: Run, folder: Path, text: str, *flags: str, code: int = 0) -> str:
    (folder / "Dockerfile").write_text(text)
    return docker("buildx", "build", "--no-cache", "-t", "mounted", *flags, ".", code=code).stderr


def test_binds(docker: Run, tmp_path: Path) -> None:
    build(docker, tmp_path, """
FROM busybox AS other
RUN mkdir /o && echo of the stage > /o/file
FROM busybox
RUN --mount=target=/a --mount=dst=/b,src=dir --mount=destination=/c,from=other,source=/o,readonly=false \
    --mount=type=bind,target=/d,from=other,source=o,rw --mount=type=bind,target=/e,source=dir,readwrite=true \
    --mount=type=bind,target=/f,source=dir,rw,ro --mount=type=bind,target=/g,source=dir/file <<EOF
set -e
cat /a/dir/file /b/file /c/file /d/file /e/file /g > /seen
for one in a b f g; do
  if (echo x > /$one/new || echo x > /$one) 2>/dev/null; then echo written: $one; exit 1; fi
done
echo new > /c/new; echo new > /d/new; echo changed > /e/file
EOF
RUN --mount=target=/e,source=dir --mount=target=/c,from=other,source=/o cat /e/file >> /seen && ls /c >> /seen
""")  # fmt: skip
    context, stage = "of the context\n", "of the stage\n"
    assert docker("run", "--rm", "mounted", "cat", "/seen").stdout == context * 2 + stage * 2 + context * 3 + "file\n"
    assert docker("run", "--rm", "mounted", "sh", "-c", "ls -d /a /b /c 2>/dev/null; true").stdout == ""


def test_caches(docker: Run, tmp_path: Path) -> None:
    build(docker, tmp_path, """
FROM busybox AS filled
RUN mkdir /k && echo of the stage > /k/file
FROM busybox
RUN --mount=type=cache,target=/made,id=mine,mode=0750,uid=33,gid=34 stat -c '%a %u %g' /made > /seen && touch /made/by-one
RUN --mount=type=cache,dst=/elsewhere,id=mine,ro ls /elsewhere >> /seen && ! touch /elsewhere/x 2>/dev/null
RUN --mount=type=cache,target=/made ls /made | wc -l >> /seen
RUN --mount=type=cache,target=/from,from=filled,source=/k,id=filled cat /from/file >> /seen && echo changed > /from/file
RUN --mount=type=cache,target=/from,from=filled,source=/k,id=filled,readonly cat /from/file >> /seen
""")  # fmt: skip
    assert docker("run", "--rm", "mounted", "cat", "/seen").stdout == "750 33 34\nby-one\n0\nof the stage\nchanged\n"


def test_caches_are_shared_private_or_locked(docker: Run, tmp_path: Path) -> None:
    """Two steps wait for each other in a shared cache, so that they run at the same time."""
    meet = "touch /meet/$me; while [ ! -e /meet/$other ]; do usleep 10000; done"
    for me, other in ("ab", "ba"):
        text = f"""
FROM busybox AS shared-{me}
RUN --mount=type=cache,target=/meet,id=meeting-{os.getpid()},sharing=shared --mount=type=cache,target=/own,id=own,sharing=private \\
    me={me}; other={other}; {meet}; touch /own/{me}; touch /meet/$me-wrote; \\
    while [ ! -e /meet/$other-wrote ]; do usleep 10000; done; ls /own > /seen
FROM busybox AS locked-{me}
RUN --mount=type=cache,target=/lock,id=lock,sharing=locked mkdir /lock/held && usleep 300000 && rmdir /lock/held && touch /seen
"""
        (tmp_path / f"part-{me}").write_text(text)
    parts = (tmp_path / "part-a").read_text() + (tmp_path / "part-b").read_text()
    copies = "".join(f"COPY --from={kind}-{me} /seen /{kind}-{me}\n" for kind in ("shared", "locked") for me in "ab")
    build(docker, tmp_path, f"{parts}FROM busybox\n{copies}")
    assert docker("run", "--rm", "mounted", "cat", "/shared-a", "/shared-b").stdout == "a\nb\n"


def test_tmpfs(docker: Run, tmp_path: Path) -> None:
    build(docker, tmp_path, """
FROM busybox
RUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -1 | awk '{print $2}' > /seen; \
    dd if=/dev/zero of=/t/f bs=1k count=2000 2>/dev/null || echo full >> /seen
RUN --mount=type=tmpfs,target=/t ls /t | wc -l >> /seen
""")  # fmt: skip
    assert docker("run", "--rm", "mounted", "cat", "/seen").stdout == "1024\nfull\n0\n"


def test_secrets(docker: Run, tmp_path: Path) -> None:
    build(docker, tmp_path, """
FROM busybox
RUN --mount=type=secret,id=s stat -c '%a %u %g %s' /run/secrets/s > /seen
RUN --mount=type=secret,id=s,target=/etc/s,mode=0440,uid=33,gid=34,required=true stat -c '%a %u %g %s' /etc/s >> /seen
RUN --mount=type=secret,id=s,env=WORD test "$WORD" = hidden && ls /run/secrets 2>/dev/null | wc -l >> /seen
RUN --mount=type=secret,id=s,env=WORD,target=/both test "$WORD" = "$(cat /both)" && echo both >> /seen
RUN --mount=type=secret,target=/named/s cat /named/s | wc -c >> /seen
RUN --mount=type=secret,id=none test ! -e /run/secrets/none && echo absent >> /seen
""", "--secret=id=s,src=secret")  # fmt: skip
    assert docker("run", "--rm", "mounted", "cat", "/seen").stdout == "400 0 0 6\n440 33 34 6\n0\nboth\n6\nabsent\n"
    said = build(docker, tmp_path, "FROM busybox\nRUN --mount=type=secret,id=none,required true\n", code=1)
    assert "secret none: not found" in said


def test_agents(docker: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        agent.listen()
        build(docker, tmp_path, """
FROM busybox
RUN --mount=type=ssh stat -c '%F %a %u %g' "$SSH_AUTH_SOCK" > /seen
RUN --mount=type=ssh,id=own,target=/agent,mode=0666,uid=33,gid=34,required stat -c '%F %a %u %g' /agent >> /seen && echo $SSH_AUTH_SOCK >> /seen
RUN --mount=type=ssh,id=none echo "${SSH_AUTH_SOCK:-none}" >> /seen
""", f"--ssh=default={path}", f"--ssh=own={path}")  # fmt: skip
    assert docker("run", "--rm", "mounted", "cat", "/seen").stdout == "socket 600 0 0\nsocket 666 33 34\n/agent\nnone\n"
    said = build(docker, tmp_path, "FROM busybox\nRUN --mount=type=ssh,required true\n", code=1)
    assert "unset ssh forward key default" in said


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("type=nothing,target=/a", 'unsupported mount type "nothing"'), ("target=/a,what=1", "unexpected key 'what' in 'what=1'"),
        ("type=cache", 'target must be set for mount type "cache"'), ("target=/a,size=1m", "unexpected key 'size' for mount type 'bind'"),
        ("type=secret,id=s,from=busybox", "secret mount should not have a from"),
        ("type=secret", "invalid secret mount. one of source, target required"), ("target", "invalid field 'target' must be a key=value pair"),
        ("type=cache,target=/a,sharing=some", 'unsupported sharing value "some"'), ("type=cache,target=/a,mode=9", "invalid value 9 for mode"),
        ("type=secret,id=s,uid=x", "invalid value x for uid"), ("type=tmpfs,target=/a,size=big", "invalid value for size: big"),
        ("type=ssh,required=maybe", "invalid value for required: maybe"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(mount: str, message: str, docker: Run, tmp_path: Path) -> None:
    said = build(docker, tmp_path, f"FROM busybox\nRUN --mount={mount} true\n", code=1)
    assert message in said, said

"""The same sequences of commands on a Docker daemon and on our engine: what they print and their exit codes."""

import json
import os
import re
import shlex
import subprocess
import threading
import time

import pytest

from conformance.operations import SEQUENCES

pytestmark = pytest.mark.conformance

# What is told in other words, or otherwise, on purpose. The daemon beside us is of version 20.10.
EXPLAINED = {
    # Words of later versions, which are ours too.
    "limits: refused --restart on-failure:-1": "words", "limits: refused --restart always:3": "words",
    "limits: refused --restart sometimes": "words",
    # Checked when the container is made; Docker checks when it is started.
    "limits: refused --log-opt max-file=0 --log-opt max-size=1k": "earlier",
    "limits: refused --log-opt max-size=red": "earlier", "limits: refused --tmpfs /t:colour=red": "earlier",
    # Weights are given to the scheduler that has them; Docker knows only the one that is gone.
    "limits: refused --blkio-weight 5": "more",
}
# Words of version 20.10 and of those that came later.
_WORDS = [
    (r"you cannot remove a running container ID. Stop the container before attempting removal or force remove",
     'cannot remove container "rr": container is running: stop the container before removing or force remove'),
    ("unrecognised filter value for health: odd", "invalid filter 'health=odd'"),
    ("from daemon: failed to initialize logging", "from daemon: failed to create task for container: failed to initialize logging"),
    ("from daemon: failed to create shim task", "from daemon: failed to create task for container: failed to create shim task"),
    ("container process: exec:", "container process: error during container init: exec:"),
    (": unknown(?=\n|$)", ""),
    ("password=secret", "password=********"),
    (r'unable to remove repository reference "used:1" \(must force\)', "unable to delete used:1 (must be forced)"),
    (r"[Ee]rror processing tar file\(exit status 1\): ", ""),
    ("no such image: nosuch\n", "no such image: nosuch:latest\n"),
    ("restart policy 'nosuch'", "restart policy: unknown policy 'nosuch'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"),
]  # fmt: skip
_CASES = re.compile(r"(Error response from daemon: |: )([A-Z])(?=[a-z])")


class Side:
    """One engine."""

    def __init__(self, host, root, environment):
        self.root = root
        # One version of the API, so that the command asks both alike.
        self.environment = {**os.environ, **environment, "DOCKER_HOST": host, "DOCKER_API_VERSION": "1.41"}
        self.number = 0

    def run(self, line, places):
        words = [word.format(**places) if re.search(r"\{(dir|began|now)\}", word) else word for word in shlex.split(line)]
        words = [word.replace("{{{{", "{{").replace("}}}}", "}}") for word in words]
        done = subprocess.run(["docker", *words], env=self.environment, capture_output=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def sequence(self, lines):
        self.number += 1
        folder = self.root / f"seq{self.number}"
        folder.mkdir()
        (folder / "hello").write_text("hello\n")
        places = {"dir": str(folder), "began": f"{time.time():.9f}"}
        results = []
        for line in lines:
            places["now"] = f"{time.time():.9f}"
            if line.startswith("quiet "):
                # What other tests left is put away first, which differs.
                self.run(line.removeprefix("quiet "), places)
                places["began"] = f"{time.time():.9f}"
            elif line.startswith("until "):
                wanted, _, command = line.removeprefix("until ").partition(" = ")
                deadline = time.monotonic() + 30
                while (result := self.run(command, places))[1].decode().strip() != wanted:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.05)
                results.append((line, result[1].decode()))
            else:
                results.append((line, self.shown(self.run(line, places), places)))
        return results

    def shown(self, result, places):
        code, out, err = (r if isinstance(r, int) else r.decode("utf-8", "backslashreplace") for r in result)
        text = f"exit {code}\n{out}\n--\n{err}"
        text = text.replace(places["dir"], "DIR").replace(str(self.root), "ROOT")
        text = re.sub(r"[0-9a-f]{64}", "ID", text)
        text = re.sub(r"\b[0-9a-f]{12}\b", "ID12", text)
        return re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME", text)


@pytest.fixture(scope="module")
def sides(engine, dockerd):
    ours = Side(engine.host, engine.root, {"DOCKER_CONFIG": str(engine.root / "docker-config")})
    theirs = Side(dockerd.host, dockerd.root, {"DOCKER_CONFIG": str(dockerd.root / "docker-config")})
    return ours, theirs


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_does_what_it_does_with_docker(sides, name):
    ours, theirs = sides
    found = {}
    thread = threading.Thread(target=lambda: found.update(theirs=theirs.sequence(SEQUENCES[name])))
    thread.start()
    mine = ours.sequence(SEQUENCES[name])
    thread.join()
    if name in EXPLAINED:
        assert mine[0][1].startswith("exit 1\n")
        return
    for (line, mine_text), (_, their_text) in zip(mine, found["theirs"], strict=True):
        assert normal(mine_text, name, line, ours=True) == normal(their_text, name, line, ours=False), line


def normal(text, name, line, *, ours):
    """Return a text without what differs between versions or from run to run."""
    text = _CASES.sub(lambda m: m[1] + m[2].lower(), text)
    if line.startswith("top"):
        return re.sub(r"\d+ +(?=sleep)", "", text)
    if name.startswith("events") and "exit 0" in text:
        rows = [_event(row) for row in text.splitlines()]
        # How often the kernel tells of one lack of memory, and when Docker passes it on, is chance.
        wants = {row for row in rows if row.startswith("container oom")}
        return "\n".join([*sorted(wants), *(row for row in rows if row not in wants)])
    for old, new in () if ours else _WORDS:
        text = re.sub(old, new.replace("\\", r"\\"), text)
    if "devices.list" in line:
        # A tunnel's device was among the allowed ones then.
        return sorted(row for row in text.splitlines() if row != "c 10:200 rwm")
    if line.startswith(("images", "image prune")):
        # Docker's are in no order.
        return sorted(text.splitlines())
    if "range .Mounts" in line:
        return sorted(re.split(r"[|\n]", text))
    return text


def _event(line):
    kind, _, rest = line.partition(" {")
    try:
        if not rest:
            return line
        # Later versions tell how long it ran.
        attributes = {key: value for key, value in json.loads("{" + rest).items() if key != "execDuration"}
        return f"{kind} {json.dumps(attributes, sort_keys=True)}"
    except ValueError:
        return line

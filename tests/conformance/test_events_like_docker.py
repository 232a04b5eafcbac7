"""The events of a container's whole life, with their attributes, beside those of a Docker daemon."""

import json
import time

import pytest

from under_test import until

pytestmark = pytest.mark.conformance

STEPS = [
    ["volume", "create", "--label", "v=1", "seen-volume"],
    ["network", "create", "seen-network"],
    ["create", "--name", "seen", "-l", "a=b", "-v", "seen-volume:/v", "--stop-timeout", "0", "busybox", "sleep", "1000"],
    ["start", "seen"],
    ["exec", "seen", "true"],
    ["exec", "-e", "A=1", "seen", "sh", "-c", "exit 3"],
    ["pause", "seen"],
    ["unpause", "seen"],
    ["rename", "seen", "seen2"],
    ["top", "seen2"],
    ["update", "--cpu-shares", "512", "seen2"],
    ["cp", "seen2:/etc/passwd", "/dev/null"],
    ["network", "connect", "seen-network", "seen2"],
    ["network", "disconnect", "seen-network", "seen2"],
    ["commit", "-m", "why", "seen2", "seen-image:1"],
    ["tag", "seen-image:1", "seen-image:2"],
    ["kill", "-s", "USR2", "seen2"],
    ["restart", "-t", "0", "seen2"],
    ["stop", "-t", "0", "seen2"],
    ["export", "-o", "/dev/null", "seen2"],
    ["rm", "seen2"],
    ["run", "--rm", "--name", "seen3", "busybox", "true"],
    ["rmi", "seen-image:1", "seen-image:2"],
    ["network", "rm", "seen-network"],
    ["volume", "rm", "seen-volume"],
    ["container", "prune", "-f", "--filter", "label=nosuch"],
]  # fmt: skip


def events(docker, result):
    """Take all steps; return (type, action, attributes) of what was told, identities left out."""
    began = str(time.time())
    for step in STEPS:
        result(*step)

    def told():
        # "Until now" ends the stream at once; what is told late comes with the next look.
        return docker("events", "--since", began, "--until", str(time.time()), "--format", "{{json .}}").splitlines()

    # The last step's events come last.
    until(lambda: (lines := told()) and json.loads(lines[-1])["Action"] == "prune", "the last step is told")
    lines = told()
    found = []
    for line in lines:
        event = json.loads(line)
        attributes = {}
        for key, value in event["Actor"]["Attributes"].items():
            attributes[key] = "ID" if len(value.removeprefix("sha256:")) == 64 else value
        # What newer releases tell besides, or tell otherwise.
        for key in ("execDuration", "imageID", "imageRef", "image"):
            attributes.pop(key, None)
        found.append((event["Type"], event["Action"], attributes))
    return found


def test_the_events_of_a_life_are_dockers(engine, dockerd):
    theirs = events(dockerd.docker, dockerd.docker_result)
    ours = events(engine.docker, engine.docker_result)

    def shown(found):
        return sorted(json.dumps(event, sort_keys=True) for event in found)

    missing = [event for event in shown(theirs) if event not in shown(ours)]
    more = [event for event in shown(ours) if event not in shown(theirs)]
    assert (missing, more) == ([], [])
    # The order of one container's own events; networks and volumes are told beside them.
    def order(found):
        return [action for kind, action, _ in found if kind == "container"]

    assert order(ours) == order(theirs)

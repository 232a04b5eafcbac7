"""A budget of the disk: old tags, unused images and too many bytes go by themselves; what is in use stays."""

import json
import subprocess
import sys

import pytest

from under_test import running_engine, until

pytestmark = pytest.mark.system


@pytest.fixture
def budgeted(request):
    """Give an engine with the budget of the test's parameter."""
    yield from running_engine(*[word for pair in request.param for word in ("--disk-budget", pair)])


def make_image(engine, name, text, size=0):
    """Make an image with a layer of its own."""
    engine.docker("run", "--name", "maker", "busybox", "sh", "-c", f"echo {text} > /made; head -c {size} /dev/urandom > /big")
    engine.docker("commit", "maker", name)
    engine.docker("rm", "maker")


def tags(engine, repository):
    return set(engine.docker("images", "--format", "{{.Tag}}", repository).split())


@pytest.mark.parametrize("budgeted", [["keep-tags=2", "every=1s"]], indirect=True)
def test_the_newest_tags_of_a_repository_stay_and_those_in_use(budgeted):
    engine = budgeted
    for number in range(1, 5):
        make_image(engine, f"app:{number}", number)
        if number == 1:
            engine.docker("create", "--name", "holds", "app:1")
    until(lambda: tags(engine, "app") == {"1", "3", "4"}, "the surplus goes")
    until(lambda: "disk budget: app:2 removed: its repository keeps 2 tags" in engine.log.read_text(), "it is told")
    assert engine.docker("run", "--rm", "app:1", "cat", "/made") == "1"
    assert tags(engine, "busybox") == {"latest"}
    engine.docker("rm", "holds")
    until(lambda: tags(engine, "app") == {"3", "4"}, "what nobody uses goes")


@pytest.mark.parametrize("budgeted", [["unused-for=4s", "every=1s"]], indirect=True)
def test_images_that_nobody_used_for_long_go_and_use_keeps_them(budgeted):
    engine = budgeted
    engine.docker("create", "--name", "keeps", "busybox")
    make_image(engine, "stale:1", "stale")
    make_image(engine, "used:1", "used")
    lasting = subprocess.Popen(["docker", "run", "--rm", "used:1", "sleep", "7"], env=engine.environment)
    until(lambda: not tags(engine, "stale"), "the stale one goes")
    assert tags(engine, "used") == {"1"} and tags(engine, "busybox") == {"latest"}
    lasting.wait(30)
    assert tags(engine, "used") == {"1"}, "its last use is not long ago"
    until(lambda: not tags(engine, "used"), "now it is")
    events = engine.docker("events", "--since", "60s", "--until", "0s", "--filter", "type=image", "--filter", "event=prune",
                           "--format", "{{json .Actor.Attributes}}")  # fmt: skip
    assert any(json.loads(line).get("reason") == "disk budget" for line in events.splitlines())
    engine.docker("rm", "keeps")


@pytest.mark.parametrize("budgeted", [["max-size=9m", "every=1s"]], indirect=True)
def test_beyond_the_size_those_go_whose_use_is_longest_ago(budgeted):
    engine = budgeted
    engine.docker("create", "--name", "keeps", "busybox")
    for name in ("first", "second", "third"):
        make_image(engine, f"{name}:1", name, 3_000_000)
    until(lambda: not tags(engine, "first"), "the oldest goes")
    until(lambda: tags(engine, "third") == {"1"} and tags(engine, "busybox") == {"latest"})
    taken = json.loads(engine.docker("system", "df", "--format", "{{json .}}").splitlines()[0])
    assert taken["Type"] == "Images"
    engine.docker("rm", "keeps")


def test_without_a_budget_nothing_goes(engine):
    engine.docker("tag", "busybox", "old:1")
    assert "disk budget" not in engine.log.read_text() and tags(engine, "old") == {"1"}
    engine.docker("rmi", "old:1")


@pytest.mark.parametrize("words", [["colour=red"], ["keep-tags=x"], ["keep-tags=-1"], ["unused-for=1day"], ["max-size=huge"], ["every=1ms"]])
def test_a_budget_that_cannot_be_keeps_the_daemon_from_starting(words):
    flags = [word for pair in words for word in ("--disk-budget", pair)]
    result = subprocess.run([sys.executable, "-m", "barque", "daemon", *flags, "--validate"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 1 and "disk-budget" in result.stderr

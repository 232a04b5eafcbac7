"""`barque bake` on a real engine, and its reading of files beside buildx's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from barque.cli.building.bake.targets import fields_of
from plugins import plugin_config
from under_test import EngineUnderTest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/bake"

pytestmark = pytest.mark.system


def barque(engine: EngineUnderTest, folder: Path, *words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**engine.environment, "PYTHONPATH": str(ROOT / "src"), "DOCKER_CONFIG": str(folder / "none"), **more}
    done = subprocess.run(
        [sys.executable, "-m", "barque", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done


def normal(text: str) -> dict:
    """Return what is printed; older releases print texts where newer ones print objects."""
    found = json.loads(text)
    for group in found.get("group", {}).values():
        # Services of a Compose file come in any order.
        group["targets"].sort()
    for target in found["target"].values():
        for key in ("attest", "cache-from", "cache-to", "secret", "ssh", "output"):
            if key in target:
                target[key] = [fields_of(key, one) for one in target[key]]
    return found


@pytest.mark.parametrize(
    "words",
    [
        "-f targets.hcl", "-f targets.hcl app db", "-f targets.hcl --load base", "-f compose.yaml", "-f compose.yaml plain",
        "-f targets.hcl -f compose.yaml app plain", "-f targets.json all", "-f targets.json b", "-f functions.hcl",
        "-f targets.hcl --set *.args.Z=1 --set app.tags=x:1 --set app.output=type=local,dest=o db --push",
        "-f targets.json --set a.args.Y=5 --set *.platform=linux/amd64 --set *.cache-from=x/y --set b.labels.q=1 all",
        "-f targets.hcl --no-cache --pull app",
    ],
)  # fmt: skip
def test_files_are_read_as_buildx_reads_them(words: str, engine: EngineUnderTest, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    shutil.copytree(DATA, folder)
    (folder / "s").touch()
    config = plugin_config(tmp_path / "config")
    ours = barque(engine, folder, "buildx", "bake", *words.split(), "--print", TAG="7", N="8", V="env").stdout
    theirs = subprocess.run(
        ["docker", "buildx", "bake", *words.split(), "--print"], cwd=folder, capture_output=True, text=True, timeout=60,
        env={**engine.environment, "DOCKER_CONFIG": str(config), "TAG": "7", "N": "8", "V": "env"},
    )  # fmt: skip
    assert normal(ours) == normal(theirs.stdout), theirs.stderr


def test_expressions_have_the_values_that_buildx_gives_them(engine: EngineUnderTest, tmp_path: Path) -> None:
    expressions = (DATA / "expressions.txt").read_text().splitlines()
    rows = [f'  e{number} = try(jsonencode({text}), "fails")\n' for number, text in enumerate(expressions)]
    (tmp_path / "docker-bake.hcl").write_text(f'target "default" {{\n args = {{\n{"".join(rows)} }}\n}}\n')
    config = plugin_config(tmp_path / "config")
    values = []
    ours = barque(engine, tmp_path, "bake", "--print").stdout
    theirs = subprocess.run(
        ["docker", "buildx", "bake", "--print"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        env={**engine.environment, "DOCKER_CONFIG": str(config)},
    ).stdout  # fmt: skip
    for printed in (ours, theirs):
        values.append(json.loads(printed)["target"]["default"]["args"])
    wrong = [f"{text}: {values[0][f'e{n}']} | {values[1][f'e{n}']}" for n, text in enumerate(expressions) if values[0][f"e{n}"] != values[1][f"e{n}"]]
    assert not wrong, "\n".join(wrong)
    # Most of them have a value.
    assert sum(value == "fails" for value in values[1].values()) < len(expressions) // 5


LINKED = '''
group "default" { targets = ["app", "m"] }
variable "WORD" {
  default = "none"
  description = "What is said"
}
target "app" {
  context = "app"
  contexts = { base = "target:base", src = "./src" }
  tags = ["baked/app"]
  description = "The application"
}
target "base" {
  dockerfile-inline = <<EOT
FROM busybox
ENV WORD=${WORD}
RUN echo base > /base
EOT
}
target "m" {
  name = "m-${x}"
  matrix = { x = ["1", "2"] }
  dockerfile-inline = "FROM busybox\\nARG X\\nRUN echo $X > /x"
  args = { X = x }
  output = ["type=local,dest=out-${x}"]
}
target "broken" {
  dockerfile-inline = "FROM busybox\\nRUN exit 4"
}
'''


def test_targets_are_built_out_of_each_other_and_side_by_side(engine: EngineUnderTest, tmp_path: Path) -> None:
    for name, text in (("docker-bake.hcl", LINKED), ("app/Dockerfile", "FROM base\nCOPY --from=src f /f\nRUN cat /f /base; echo $WORD\n"),
                       ("src/f", "of src\n")):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    said = barque(engine, tmp_path, "bake", "--progress=plain", "--metadata-file", "m.json", WORD="spoken").stderr
    assert "] exporting to image" in said and "[app 3/3] RUN cat /f /base; echo spoken" in said
    assert engine.docker("run", "--rm", "baked/app", "sh", "-c", "cat /f /base; echo $WORD").split() == ["of", "src", "base", "spoken"]
    assert [(tmp_path / f"out-{number}/x").read_text() for number in "12"] == ["1\n", "2\n"]
    made = json.loads((tmp_path / "m.json").read_text())
    assert sorted(made) == ["app", "m-1", "m-2"]
    assert made["app"]["image.name"] == "docker.io/baked/app:latest"
    said = barque(engine, tmp_path, "bake", "broken", "m-1", code=1).stderr
    assert 'process "/bin/sh -c exit 4" did not complete successfully: exit code: 4' in said
    listed = barque(engine, tmp_path, "bake", "--list=targets").stdout.splitlines()
    assert listed[0].split() == ["TARGET", "DESCRIPTION"]
    assert "app       The application" in listed
    rows = json.loads(barque(engine, tmp_path, "bake", "--list=type=variables,format=json", "--var", "WORD=said").stdout)
    assert rows == [{"name": "WORD", "description": "What is said", "value": "said"}]
    assert "failed to find target nothing" in barque(engine, tmp_path, "bake", "nothing", code=1).stderr


MATRIX = '''
variable "VERSION" { default = "1" }
group "default" { targets = ["app"] }
target "app" {
  name = "app-${flavour.name}-${replace(release, ".", "-")}"
  matrix = {
    flavour = [{ name = "small", word = "s" }, { name = "large", word = "l" }]
    release = ["1.0", "2.0"]
  }
  args = { WORD = flavour.word, RELEASE = release }
  dockerfile-inline = <<EOT
FROM busybox
ARG WORD
ARG RELEASE
RUN echo $WORD $RELEASE > /said
EOT
  tags = ["${CLIENT}/matrix:${flavour.name}-${release}-${VERSION}"]
}
variable "CLIENT" { default = "" }
'''


@pytest.mark.parametrize("client", ["buildx", "barque"])
def test_each_target_of_a_matrix_is_built(client: str, engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text(MATRIX)
    environment = {**engine.environment, "PYTHONPATH": str(ROOT / "src"), "DOCKER_CONFIG": str(plugin_config(tmp_path / ".docker")), "VERSION": "7", "CLIENT": client}
    command = ["docker", "buildx"] if client == "buildx" else [sys.executable, "-m", "barque"]

    def bake(*words: str) -> None:
        done = subprocess.run([*command, "bake", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr

    def said(tag: str) -> str:
        return engine.docker("run", "--rm", f"{client}/matrix:{tag}", "cat", "/said")

    bake()
    tags = {f"{name}-{release}-7": f"{name[0]} {release}" for name in ("small", "large") for release in ("1.0", "2.0")}
    assert set(engine.docker("images", "--format", "{{.Tag}}", f"{client}/matrix").split()) == set(tags)
    assert {tag: said(tag) for tag in tags} == tags
    bake("--set", "*.args.WORD=set", "--set", f"app-small-2-0.tags={client}/matrix:own", "app-small-2-0", "app-large-1-0")
    assert (said("own"), said("small-2.0-7"), said("large-1.0-7"), said("large-2.0-7")) == ("set 2.0", "s 2.0", "set 1.0", "l 2.0")

"""The Dockerfile frontend: only what the target needs, and configs as the instructions say; no engine is needed."""

import asyncio
import json

import pytest

from barque.base.errors import BarqueError, NotFoundError
from barque.builder import graph
from barque.builder.dockerfile import Options, Surroundings, Target, convert
from barque.builder.history import image_config, told
from barque.builder.results import Result
from barque.dockerfile.stages import parse
from barque.images.model import Image

_BASE = Image(
    "sha256:" + "1" * 64,
    {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/base"},
     "rootfs": {"diff_ids": ["sha256:" + "2" * 64]}, "history": [{"created_by": "base"}]},
    b"", ("sha256:" + "2" * 64,), "", 0, 0,
)  # fmt: skip
_CONTEXT = graph.Source("local://context")


def target_of(text: str, options: Options | None = None, images: list[str] | None = None) -> Target:
    """Return a Dockerfile's target; the names of the images that were asked for are added to `images`."""

    async def image(name: str, platform: str) -> Image:
        if images is not None:
            images.append(name)
        if name != "base":
            raise NotFoundError(f"No such image: {name}")
        return _BASE

    async def named(name: str, platform: str) -> None:
        return None

    async def context() -> graph.Vertex:
        return _CONTEXT

    return asyncio.run(convert(parse(text), options or Options(), Surroundings(context, image, named)))


def names_of(vertex: graph.Vertex) -> list[str]:
    from barque.builder.solver import order

    return [item.name for item in order(vertex) if item.name]


def test_only_the_stages_that_the_target_needs_are_looked_at():
    images: list[str] = []
    text = "FROM base AS a\nRUN a\nFROM missing AS b\nRUN b\nFROM a AS c\nRUN c\nFROM missing2\nRUN d\n"
    target = target_of(text, Options(target="c"), images)
    assert images == ["base"]
    assert names_of(target.vertex) == ["[a 1/2] FROM docker.io/library/base:latest", "[a 2/2] RUN a", "[c 1/1] RUN c"]


def test_a_stage_copied_from_is_needed_wherever_it_stands():
    target = target_of("FROM base\nCOPY --from=late /x /x\nFROM base AS late\nRUN late\n", Options(target="0"))
    assert "[late 2/2] RUN late" in names_of(target.vertex)


@pytest.mark.parametrize(
    "text",
    ["FROM base AS a\nCOPY --from=a / /x", "FROM base AS a\nCOPY --from=b / /\nFROM base AS b\nCOPY --from=a / /\n",
     "FROM base AS a\nRUN --mount=from=b,target=/b x\nFROM a AS b\nRUN y\n"],
)  # fmt: skip
def test_stages_that_need_each_other_are_refused(text):
    with pytest.raises(BarqueError, match="circular dependency detected on stage: "):
        target_of(text)


def test_ten_thousand_stages_are_no_deep_recursion():
    text = "FROM base AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\nENV A{i}=1\n" for i in range(10_000))
    target = target_of(text, Options(target="s500"))
    assert len(target.state.config["Env"]) == 501
    assert len(target.chain()) == 501


def test_arguments_have_the_scope_that_docker_gives_them():
    text = (
        "ARG V=global\nARG NAME=base\nFROM $NAME\nRUN before $V\nARG V\nARG D=${V}-x\nENV E=$D\nARG E=hidden\n"
        "ARG TARGETARCH\nLABEL v=$V d=$D e=$E a=$TARGETARCH n=${NAME:-unset}\n"
    )
    config = target_of(text, Options(platform="linux/arm64")).state.config
    assert config["Labels"] == {"v": "global", "d": "global-x", "e": "global-x", "a": "arm64", "n": "unset"}
    given = target_of(text, Options(build_args={"V": "given", "D": "mine"})).state.config
    assert (given["Labels"]["v"], given["Labels"]["e"]) == ("given", "mine")


def test_a_stage_knows_the_arguments_of_the_one_it_starts_from_and_scratch_works_at_the_root():
    text = "FROM scratch AS a\nARG X=1\nFROM a AS b\nARG Y=$X\nFROM scratch AS c\nFROM b\nLABEL x=<$X> y=<$Y>\n"
    config = target_of(text).state.config
    assert config["Labels"] == {"x": "<1>", "y": "<1>"}
    assert config["WorkingDir"] == "/"
    aside = "FROM scratch AS a\nARG X=1\nFROM scratch\nLABEL x=<$X>\n"
    assert target_of(aside).state.config["Labels"] == {"x": "<>"}


def test_an_argument_reaches_the_commands_after_it_and_proxies_do_not_tell_builds_apart():
    options = Options(build_args={"A": "1", "HTTP_PROXY": "http://proxy"})
    step = target_of("FROM base\nARG A\nRUN x\n", options).vertex
    assert isinstance(step, graph.Exec)
    assert "A=1" in step.env
    assert step.hidden_env == ("HTTP_PROXY=http://proxy",)


def test_instructions_come_to_the_config_that_docker_makes():
    text = (
        "FROM base\nENV A=1 B='two words'\nWORKDIR rel\nWORKDIR /abs\nUSER u:g\nEXPOSE 80 53/udp 100-101\n"
        "VOLUME /a /b\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/ash\", \"-c\"]\nENTRYPOINT serve\nCMD [\"x\"]\n"
        "HEALTHCHECK --interval=1m --retries=2 CMD check\nMAINTAINER me\nONBUILD RUN later\n"
    )
    target = target_of(text)
    config = target.state.config
    assert config["Env"] == ["PATH=/bin", "A=1", "B=two words"]
    assert config["WorkingDir"] == "/abs"
    assert config["User"] == "u:g"
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp", "100/tcp", "101/tcp"}
    assert set(config["Volumes"]) == {"/a", "/b"}
    assert config["Entrypoint"] == ["/bin/ash", "-c", "serve"]
    assert config["Cmd"] == ["x"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "check"], "Interval": 60_000_000_000, "Retries": 2}
    assert config["OnBuild"] == ["RUN later"]
    assert target.state.author == "me"
    assert [s.vertex for s, _ in target.steps if s.vertex is not None] and config["StopSignal"] == "SIGINT"


def test_an_entrypoint_takes_the_base_images_command_away_but_not_ones_own():
    assert "Cmd" not in target_of("FROM base\nENTRYPOINT [\"e\"]\n").state.config
    assert target_of("FROM base\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n").state.config["Cmd"] == ["c"]


def test_a_linked_copy_does_not_stand_on_what_is_below():
    linked = target_of("FROM base\nCOPY --link a /a\n").vertex
    assert isinstance(linked, graph.Merge)
    alone = linked.needs[1]
    assert isinstance(alone, graph.Files)
    assert isinstance(alone.needs[0], graph.Scratch)


def test_heredocs_are_scripts_or_files():
    text = "FROM base\nRUN <<E\n#!/bin/x\nbody\nE\nRUN <<E\nplain\nE\nRUN cat <<E\nfed\nE\nCOPY <<f <<\"g\" /d/\n$PATH\nf\n$PATH\ng\n"
    steps = [s.vertex for s, _ in target_of(text).steps]
    script, plain, fed, files = steps
    assert isinstance(script, graph.Exec) and script.args[-1] == "/dev/pipes/E"
    assert isinstance(plain, graph.Exec) and plain.args[-1] == "plain\n"
    assert isinstance(fed, graph.Exec) and fed.args[-1] == "cat <<E\nfed\nE"
    assert isinstance(files, graph.Files)
    contents = [need.actions[0].data for need in files.needs[1:]]
    assert contents == [b"/bin\n", b"$PATH\n"]


def test_the_image_config_has_the_history_of_all_stages_and_marks_steps_without_a_layer():
    target = target_of("FROM base AS a\nRUN one\nFROM a\nENV X=1\nRUN nothing\n", Options(labels={"k": "v"}))
    base = (("sha256:" + "2" * 64, "sha256:" + "2" * 64),)
    first = (*base, ("sha256:" + "3" * 64, "sha256:" + "4" * 64))
    steps = [(s, root) for stage in target.chain() for s, root in stage.steps]
    results = {target.chain()[0].base_root: Result(base, 1), steps[0][1]: Result(first, 2_000_000_000),
               target.vertex: Result(first, 3)}  # fmt: skip
    config = image_config(target, results)
    assert [h["created_by"] for h in config["history"]] == [
        "base", "RUN /bin/sh -c one # buildkit", "ENV X=1", "RUN /bin/sh -c nothing # buildkit"
    ]  # fmt: skip
    assert [bool(h.get("empty_layer")) for h in config["history"]] == [False, False, True, True]
    assert config["rootfs"]["diff_ids"] == [diff for _, diff in first]
    assert config["created"].startswith("1970-01-01T00:00:02")
    assert config["config"]["Labels"] == {"k": "v"}
    assert json.dumps(config)
    fixed = image_config(target, results, time_ns=0)
    assert {h["created"] for h in fixed["history"][1:]} == {"1970-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM $X", "base name \\(\\$X\\) should not be blank"),
        ("FROM base\nRUN --mount=type=cache true", "target must be set"),
        ("FROM base\nRUN --mount=type=bind,target=/ true", "invalid mount target"),
        ("FROM base\nADD --checksum=x a b /c/", "checksum can't be specified for multiple sources"),
        ("FROM base\nADD --checksum=x a /c/", "checksum requires HTTP\\(S\\) or Git sources"),
        ("FROM base\nCOPY http://127.0.0.1/x /", "source can't be a URL for COPY"),
        ("FROM base\nEXPOSE 99999", "invalid containerPort: 99999"),
        ("FROM base\nEXPOSE 80/foo", "invalid proto: foo"),
        ("FROM base\nCOPY a b /c", "the destination must be a directory and end with a /"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(text, message):
    with pytest.raises(BarqueError, match=message):
        target_of(text)


def test_steps_without_a_layer_have_the_time_of_the_layers_around_them():
    target = target_of("FROM base\nENV A=1\nRUN one\nENV B=2\n")
    base = (("sha256:" + "2" * 64, "sha256:" + "2" * 64),)
    first = (*base, ("sha256:" + "3" * 64, "sha256:" + "4" * 64))
    run = next(s.vertex for s, _ in target.steps if s.vertex is not None)
    results = {target.base_root: Result(base, 1_000_000_000), run: Result(first, 5_000_000_000)}
    times = [h.get("created") for h in image_config(target, results)["history"]]
    assert times == [None, *["1970-01-01T00:00:05Z"] * 3]
    only_words = target_of("FROM base\nENV A=1\n")
    config = image_config(only_words, {only_words.base_root: Result(base, 1)})
    # Nobody knows when it was made: BuildKit gives no time either.
    assert "created" not in config
    assert "created" not in config["history"][-1]


def test_steps_are_named_with_their_stage_and_place():
    target = target_of("FROM base AS one\nRUN x\nCOPY a /\nFROM one\nRUN  y\n")
    assert names_of(target.vertex) == [
        "[one 1/3] FROM docker.io/library/base:latest", "[one 2/3] RUN x", "[one 3/3] COPY a /", "[stage-1 1/1] RUN y"
    ]  # fmt: skip


def test_names_of_steps_show_values_links_triggers_and_platforms():
    text = "FROM base\nARG TARGETARCH\nENV A=1 B='x y'\nRUN echo $A $Z \"$B\"\nCOPY --link $A /l\n" + "RUN x\n" * 7
    names = names_of(target_of(text).vertex)
    assert "[ 1/10] FROM docker.io/library/base:latest" in names
    assert '[ 2/10] RUN echo 1 $Z "x y"' in names
    assert "[ 3/10] COPY --link 1 /l" in names
    assert names[-1] == "[10/10] RUN x"
    several = target_of("FROM base\nARG TARGETARCH=arm64\nRUN x\n", Options(platform="linux/amd64", several_platforms=True))
    assert names_of(several.vertex)[1] == "[linux/amd64->arm64 2/2] RUN x"


def test_the_history_tells_all_arguments_in_their_order_and_whole_ports():
    text = "ARG G=g\nFROM base\nARG Z=1\nARG G\nARG NONE\nENV Z=2\nRUN x\nEXPOSE 80 53/UDP\n"
    target = target_of(text, Options(build_args={"NONE": None}))
    assert [told(step) for step, _ in target.steps] == [
        "ARG Z=1", "ARG G=g", "ARG NONE", "ENV Z=2", "RUN |3 Z=2 G=g NONE= /bin/sh -c x # buildkit",
        "EXPOSE [53/udp 80/tcp]",
    ]  # fmt: skip

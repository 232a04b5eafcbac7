import pytest

from barque.base.errors import InvalidInputError
from barque.images.changes import apply_changes


def test_every_instruction_changes_its_key():
    made = apply_changes(
        {"Env": ["A=1", "B=2"], "Cmd": ["x"]},
        [
            'ENTRYPOINT ["/a", "b"]',
            "CMD echo hi",
            'ENV A=3 C="x y"',
            "EXPOSE 80 90-91/udp",
            "LABEL k=v\nLABEL l=$C \\\n m=1",
            "ONBUILD RUN true",
            "USER 5:6",
            'VOLUME ["/a b"]',
            "WORKDIR /a",
            "WORKDIR b",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
            "STOPSIGNAL SIGINT",
        ],
    )
    assert made == {
        "Env": ["A=3", "B=2", "C=x y"],
        "Cmd": ["/bin/sh", "-c", "echo hi"],
        "Entrypoint": ["/a", "b"],
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "91/udp": {}},
        "Labels": {"k": "v", "l": "x y", "m": "1"},
        "OnBuild": ["RUN true"],
        "User": "5:6",
        "Volumes": {"/a b": {}},
        "WorkingDir": "/a/b",
        "Healthcheck": {"Interval": 90_000_000_000, "Retries": 2, "Test": ["CMD-SHELL", "true"]},
        "StopSignal": "SIGINT",
    }


@pytest.mark.parametrize(
    "change",
    ["RUN x", 'SHELL ["x"]', "# x", "ENV a", "EXPOSE 70000", "EXPOSE x", "LABEL =b", "HEALTHCHECK x", "ONBUILD FROM a", "STOPSIGNAL X"],
)
def test_an_instruction_that_is_unknown_or_malformed_is_refused(change):
    with pytest.raises(InvalidInputError):
        apply_changes({}, [change])


@pytest.mark.parametrize(
    ("changes", "entrypoint", "cmd"),
    [
        ([], ["e"], ["c"]),
        (["CMD []"], ["e"], []),
        (["ENTRYPOINT []"], ["e"], ["c"]),
        (["ENTRYPOINT []", 'CMD ["d"]'], ["e"], ["d"]),
        (['ENTRYPOINT ["f"]'], ["f"], None),
        (['CMD ["d"]', 'ENTRYPOINT ["f"]'], ["f"], ["d"]),
    ],
)
def test_a_command_that_is_left_empty_is_the_one_of_before(changes, entrypoint, cmd):
    made = apply_changes({"Entrypoint": ["e"], "Cmd": ["c"]}, changes)
    assert (made.get("Entrypoint"), made.get("Cmd")) == (entrypoint, cmd)

"""Filters of the build cache, and the policies of daemon.json."""

import pytest

from barque.base.errors import InvalidInputError
from barque.builder.collecting import policies_of
from barque.builder.filters import of_words, passes

ROW = {"ID": "abc123", "Type": "regular", "Description": 'RUN echo "a,b"', "InUse": False, "Shared": True, "Parents": ["p1"]}


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ([], True), (["type==regular"], True), (["type=regular"], True), (["type!=regular"], False), (["shared"], True),
        (["private"], False), (["inuse==false"], True), (["inuse"], False), (["id~=^abc"], True), (["id~=^bc"], False),
        (["type==regular,private"], False), (["type==source.local", "shared"], True), (["parents==p1"], True),
        (['description=="RUN echo \\"a,b\\""'], True), (["description~='a,b'"], True), (["immutable,shared==true"], True),
    ],
)  # fmt: skip
def test_rows_pass_filters(filters: list[str], fits: bool) -> None:
    assert passes(filters)(ROW) is fits


@pytest.mark.parametrize("text", ["nonsense==1", "type", "==", "type==a,,b", "shared==maybe", "id~=("])
def test_a_filter_that_means_nothing_is_refused(text: str) -> None:
    if text == "type":
        assert passes([text])(ROW)
        return
    with pytest.raises(InvalidInputError):
        passes([text])


def test_words_of_the_api_must_all_hold() -> None:
    words = {"type": ["regular"], "shared": ["true"], "id": ["abc"], "description": ['RUN echo "a,b"']}
    assert passes([of_words(words)])(ROW)
    assert not passes([of_words({**words, "id": ["bc"]})])(ROW)
    with pytest.raises(InvalidInputError, match="expect only one value"):
        of_words({"type": ["regular", "frontend"]})
    with pytest.raises(InvalidInputError, match="invalid filter 'colour'"):
        of_words({"colour": ["red"]})


def test_policies_are_read_in_docker_s_words() -> None:
    found = policies_of({"gc": {"policy": [
        {"keepStorage": "10GB", "filter": ["unused-for=2200h"]}, {"maxUsedSpace": "10%", "minFreeSpace": 7, "all": True},
        {"keepDuration": "48h", "filter": ["type=source.local,type=exec.cachemount"], "reservedSpace": "1kB"},
    ]}}, 1000)  # fmt: skip
    assert (found[0].reserved_space, found[0].unused_ns) == (10 << 30, 2200 * 3600 * 10**9)
    assert (found[1].max_used_space, found[1].min_free_space, found[1].all) == (100, 7, True)
    assert found[2].matching == ["type=source.local", "type=exec.cachemount"]
    assert policies_of({"gc": {"enabled": False}}, 1000) == []
    usual = policies_of({}, 1000)
    assert [one.reserved_space for one in usual] == [0, 100, 100, 100]
    assert policies_of({"gc": {"defaultKeepStorage": "5kB"}}, 1000)[-1].reserved_space == 5120


@pytest.mark.parametrize(
    "value", [{"entitlements": {}}, {"gc": 1}, {"gc": {"enabled": "yes"}}, {"gc": {"policy": {}}},
              {"gc": {"policy": [{"keepStorage": "much"}]}}, {"gc": {"policy": [{"filter": ["colour=red"]}]}},
              {"gc": {"policy": [{"filter": ["unused-for=long"]}]}}, {"gc": {"defaultKeepStorage": "200%"}}],
)  # fmt: skip
def test_policies_that_mean_nothing_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        policies_of(value, 1000)

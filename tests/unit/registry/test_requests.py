"""Pure parts of the registry: paths, names, ranges, manifests."""

import json

import pytest
from hypothesis import given, strategies as st

from barque.oci import media
from barque.registry import manifests, names, ranges
from barque.registry.errors import RegistryError
from barque.registry.names import Target
from barque.registry.ranges import Span

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/", Target("base")),
        ("/v2", Target("base")),
        ("/v2/_catalog", Target("catalog")),
        ("/v2/a/b/c/tags/list", Target("tags", "a/b/c")),
        ("/v2/a/manifests/latest", Target("manifest", "a", "latest")),
        ("/v2/a/blobs/uploads/", Target("uploads", "a")),
        ("/v2/a/blobs/uploads", Target("uploads", "a")),
        ("/v2/a/blobs/uploads/x", Target("upload", "a", "x")),
        (f"/v2/blobs/uploads/blobs/{A}", Target("blob", "blobs/uploads", A)),
        (f"/v2/a/referrers/{A}", Target("referrers", "a", A)),
        ("/v1/", None),
        ("/", None),
    ],
)
def test_paths_mean_targets(path, target):
    assert names.parse_path(path) == target


@pytest.mark.parametrize(
    "name",
    ["A", "../etc", "a//b", "a/", "-a", "a..b", "a___b", "a b", "a\n", "ä", "", "%2e%2e", "a" * 256, "_a", "a/_made"],
)
def test_hostile_names_are_refused(name):
    with pytest.raises(RegistryError) as caught:
        names.parse_path(f"/v2/{name}/tags/list")
    assert caught.value.code == "NAME_INVALID"


@given(st.text())
def test_any_path_is_a_target_none_or_a_refusal(text):
    try:
        target = names.parse_path("/v2/" + text)
    except RegistryError as error:
        assert error.code == "NAME_INVALID"
    else:
        assert target is None or not target.name or names.check_name(target.name) == target.name


@pytest.mark.parametrize(
    "text", ["md5:" + "a" * 32, "sha256:" + "a" * 63, "sha256:" + "A" * 64, "sha256", "sha256:../../x"]
)
def test_other_digests_are_refused(text):
    with pytest.raises(RegistryError) as caught:
        names.check_digest(text)
    assert caught.value.code == "DIGEST_INVALID"


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=5-99", Span(5, 10)),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
        (None, None),
    ],
)
def test_ranges_of_downloads(header, span):
    assert ranges.of_request(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=-0", "bytes=11-12", "bytes=5-4"])
def test_ranges_behind_the_end_cannot_be_satisfied(header):
    with pytest.raises(ranges.UnsatisfiableError):
        ranges.of_request(header, 10)


@given(st.integers(0, 10**6), st.text() | st.from_regex(r"bytes=\d*-\d*", fullmatch=True))
def test_any_range_is_inside_the_blob(size, header):
    try:
        span = ranges.of_request(header, size)
    except ranges.UnsatisfiableError:
        return
    assert span is None or 0 <= span.start < span.end <= size


def test_chunks_say_where_they_belong():
    assert ranges.of_chunk("5-9") == Span(5, 10)
    assert ranges.of_chunk("bytes 5-9/*") == Span(5, 10)
    assert ranges.of_chunk(None) is None
    for header in ("9-5", "x", "-5", "5-"):
        with pytest.raises(RegistryError):
            ranges.of_chunk(header)


def image(**more):
    config = {"mediaType": media.OCI_CONFIG, "digest": A, "size": 1}
    layers = [{"mediaType": media.OCI_LAYER, "digest": B, "size": 2}]
    return {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": layers, **more}


def parse(content, content_type=media.OCI_MANIFEST):
    return manifests.parse(json.dumps(content).encode(), content_type)


def test_an_image_refers_to_its_config_and_layers():
    found = parse(image(subject={"mediaType": media.OCI_MANIFEST, "digest": B, "size": 3}, annotations={"k": "v"}))
    assert found.blobs == (A, B)
    assert found.subject == B
    assert found.artifact_type == media.OCI_CONFIG
    assert found.descriptor(A, 5) == {
        "mediaType": media.OCI_MANIFEST, "digest": A, "size": 5, "artifactType": media.OCI_CONFIG, "annotations": {"k": "v"},
    }  # fmt: skip


def test_layers_that_are_not_distributed_need_not_be_here():
    foreign = {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": B, "size": 2}
    assert parse(image(layers=[foreign])).blobs == (A,)


def test_an_index_refers_to_its_entries():
    index = {"schemaVersion": 2, "manifests": [{"mediaType": media.OCI_MANIFEST, "digest": A, "size": 1}]}
    found = parse(index, media.OCI_INDEX)
    assert (found.manifests, found.blobs, found.artifact_type) == ((A,), (), "")


@pytest.mark.parametrize(
    "content",
    [
        [],
        "text",
        {},
        {"schemaVersion": 1},
        image(mediaType=media.DOCKER_MANIFEST),
        image(mediaType=7),
        image(config=None),
        image(config={"digest": A, "size": -1}),
        image(config={"digest": "x", "size": 1}),
        image(layers={}),
        image(layers=[3]),
        image(layers=[{"digest": B, "size": 1}] * 10_001),
        image(manifests=[]),
        image(subject=7),
        image(annotations=[]),
        image(artifactType=3),
    ],
)
def test_malformed_manifests_are_refused(content):
    with pytest.raises(RegistryError) as caught:
        parse(content)
    assert caught.value.code == "MANIFEST_INVALID"


def test_nesting_without_end_is_refused():
    with pytest.raises(RegistryError):
        manifests.parse(b"[" * 200_000, "")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(
                st.sampled_from(["config", "layers", "manifests", "digest", "size", "mediaType", "subject"]), c
            )
        ),
    )
)
def test_any_json_is_a_manifest_or_refused(content):
    if isinstance(content, dict):
        content["schemaVersion"] = 2
    try:
        parse(content, "")
    except RegistryError as error:
        assert error.code == "MANIFEST_INVALID"

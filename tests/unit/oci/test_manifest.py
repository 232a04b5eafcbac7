import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from barque.base.errors import InvalidInputError
from barque.oci import manifest as manifests, media
from barque.oci.manifest import Index, Manifest
from barque.oci.platform import Platform
from choices import Choices

D = "sha256:" + "a" * 64
CONFIG = {"mediaType": media.OCI_CONFIG, "digest": D, "size": 2}
LAYER = {"mediaType": media.OCI_LAYER_GZIP, "digest": D, "size": 3}


def raw(**value):
    return json.dumps({"schemaVersion": 2, **value}).encode()


def index(*platforms):
    entries = [{"mediaType": media.OCI_MANIFEST, "digest": D, "size": n, "platform": p} for n, p in enumerate(platforms)]
    found = manifests.parse(raw(manifests=entries))
    assert isinstance(found, Index)
    return found


def test_a_manifest_and_an_index_are_told_apart():
    found = manifests.parse(raw(config=CONFIG, layers=[LAYER]), media.DOCKER_MANIFEST)
    assert isinstance(found, Manifest)
    assert found.media_type == media.DOCKER_MANIFEST
    assert found.layers[0].size == 3
    assert isinstance(manifests.parse(raw(manifests=[])), Index)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "invalid manifest"),
        (b"[]", "not an object"),
        (b"<html>", "invalid manifest"),
        (b'{"schemaVersion": 1}', "schema 1 support has been removed"),
        (b"{}", "unsupported manifest format"),
        (raw(), "unsupported manifest format"),
        (raw(config=CONFIG, layers={}), "unsupported manifest format|invalid"),
        (raw(config=CONFIG, layers=[LAYER], manifests=[]), "at once"),
        (raw(config=CONFIG, layers=[LAYER] * 126), "max depth exceeded"),
        (raw(config=CONFIG, layers=[LAYER] * 20_000), "larger than|max depth exceeded"),
        (raw(config={**CONFIG, "size": -1}), "size"),
        (raw(config={**CONFIG, "size": True}), "size"),
        (raw(config={**CONFIG, "size": 1 << 60}), "size"),
        (raw(config={**CONFIG, "digest": "sha256:../../x"}), "invalid digest"),
        (raw(manifests=[3]), "not an object"),
        (b"[" * 100_000, "invalid manifest"),
        (b" " * (5 << 20), "larger than"),
    ],
)
def test_what_is_no_manifest_is_refused(data, message):
    if data == raw(config=CONFIG, layers={}):
        assert manifests.parse(data).layers == ()
        return
    with pytest.raises(InvalidInputError, match=message):
        manifests.parse(data)


def test_the_best_platform_of_an_index_is_chosen():
    arm = index(
        {"os": "linux", "architecture": "arm", "variant": "v6"},
        {"os": "linux", "architecture": "arm", "variant": "v7"},
        {"os": "windows", "architecture": "arm", "variant": "v7"},
    )
    assert manifests.choose(arm, Platform("linux", "arm", "v7")).size == 1
    assert manifests.choose(arm, Platform("linux", "amd64")) is None
    assert manifests.choose(index(), Platform("linux", "amd64")) is None


def test_a_written_manifest_reads_back_and_is_dockers_to_the_byte():
    config = manifests.Descriptor(media.DOCKER_CONFIG, D, 7)
    layer = manifests.Descriptor(media.DOCKER_LAYER_GZIP, D, 8)
    data = manifests.docker_manifest(config, [layer])
    assert data.startswith(b'{\n   "schemaVersion": 2,\n   "mediaType": "application/vnd.docker.distribution.manifest.v2')
    assert manifests.parse(data) == Manifest(media.DOCKER_MANIFEST, config, (layer,), {})


KEYS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform", "annotations", "urls", "os"]
LEAVES = [
    2, None, True, False, 0, 1, -1, 1 << 51, 1.5, float("nan"), "", "x", D, D.upper(), "linux", *sorted(media.MANIFESTS),
    *sorted(media.INDEXES), media.OCI_CONFIG, *sorted(media.SCHEMA_1), CONFIG, LAYER, [CONFIG], [LAYER], [], {},
]  # fmt: skip


# What comes past the first checks.
BEGINNINGS = [{}, {"schemaVersion": 2}, {"schemaVersion": 2, "config": CONFIG}, {"schemaVersion": 2, "manifests": [LAYER]}]


def json_value(choices, depth=0):
    kind = choices.of(["leaf", "leaf", "list", "object"]) if depth < 4 else "leaf"
    if kind == "leaf":
        return choices.of(LEAVES)
    count = choices.of(range(5))
    if kind == "list":
        return [json_value(choices, depth + 1) for _ in range(count)]
    return json_object(choices, depth + 1)


def json_object(choices, depth=0):
    return {choices.of(KEYS): json_value(choices, depth + 1) for _ in range(choices.of(range(7)))}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=60), st.sampled_from(BEGINNINGS))
def test_any_object_is_a_manifest_or_is_refused(data, beginning):
    value = {**json_object(Choices(data)), **beginning}
    try:
        found = manifests.parse(json.dumps(value).encode())
    except InvalidInputError:
        return
    assert isinstance(found, Manifest | Index)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(data):
    try:
        manifests.parse(data)
    except InvalidInputError:
        return

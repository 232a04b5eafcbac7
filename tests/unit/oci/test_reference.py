import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from barque.base.errors import InvalidInputError
from barque.oci.reference import parse


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("user/x:1", "docker.io/user/x:1", "user/x:1"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("docker.io/library/a", "docker.io/library/a", "a"),
        ("index.docker.io/a", "docker.io/library/a", "a"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("a@sha256:" + "0" * 64, "docker.io/library/a@sha256:" + "0" * 64, "a@sha256:" + "0" * 64),
    ],
)
def test_a_reference_is_completed_and_shown_in_its_short_form(text, full, familiar):
    reference = parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("../a", "invalid reference format"),
        ("a@sha256:" + "0" * 63, "invalid checksum digest length"),
        ("a@sha256:" + "A" * 64, "invalid checksum digest format"),
        ("a@md9:" + "a" * 64, "unsupported digest algorithm"),
        ("Foo@sha256:" + "0" * 64, "repository name (library/Foo@sha256) must be lowercase"),
        ("Ubuntu", "invalid reference format: repository name (library/Ubuntu) must be lowercase"),
        ("0" * 64, "cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "must not be more than 255 characters"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text, message):
    with pytest.raises(InvalidInputError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_latest_is_added_only_where_neither_tag_nor_digest_is_given():
    assert parse("a").with_default_tag().tag == "latest"
    assert parse("a:b").with_default_tag().tag == "b"
    assert parse("a@sha256:" + "0" * 64).with_default_tag().tag == ""


# Put together from short texts: drawing from regular expressions takes ten times as long.
run = st.text("abyz0189", min_size=1, max_size=12)
run_behind = st.builds(str.__add__, st.sampled_from([".", "_", "__", "-", "--"]), run)
component = st.builds(str.__add__, run, st.lists(run_behind, max_size=3).map("".join))
tags = st.builds(str.__add__, st.sampled_from("aZ0_"), st.text("azAZ09_.-", max_size=12) | st.just("t" * 127))
domains = st.sampled_from(["localhost", "localhost:5000", "a.b", "[::1]:5000", "x:1", "A", "docker.io", "index.docker.io"])


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
@given(
    st.none() | domains,
    st.lists(component, min_size=1, max_size=4),
    st.none() | tags,
    st.booleans(),
)
def test_every_reference_of_the_grammar_is_read_and_its_short_form_means_the_same(domain, path, tag, digest):
    text = "/".join([*([domain] if domain else []), *path])
    text += f":{tag}" if tag else ""
    text += "@sha256:" + "0" * 64 if digest else ""
    if len(path) == 1 and not domain and len(path[0]) == 64:
        return
    # Docker shows docker.io/a.b/c as a.b/c too, which means something else.
    assume(domain not in ("docker.io", "index.docker.io") or not ("." in path[0] or path[0] == "localhost"))
    found = parse(text)
    assert found.tag == (tag or "")
    assert parse(str(found)) == found
    assert parse(found.familiar) == found
    assert len(found.familiar) <= len(str(found))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
@given(st.text(max_size=80) | st.text(alphabet="aA0./:@-_[]", max_size=80))
def test_any_text_is_a_reference_or_refused(text):
    try:
        found = parse(text)
    except InvalidInputError as error:
        assert str(error)
        return
    assert parse(str(found)) == found
    assert "/.." not in str(found)
    assert ".." not in found.path.split("/")

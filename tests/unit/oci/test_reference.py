import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from barque.base.errors import InvalidInputError
from barque.oci.reference import parse
from choices import Choices


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


RUNS = ["a", "0", "z9", "abc", "q7" * 9, "localhost", "x", "0b1"]
SEPARATORS = [".", "_", "__", "-", "--", "-----"]
DOMAINS = [None, "localhost", "localhost:5000", "a.b", "[::1]:5000", "x:1", "A", "docker.io", "index.docker.io", "A-b.c:0"]
TAGS = ["", "t", "0", "_", "A.b-c_d", "latest", "t" * 128, "V1..--"]


def component(choices):
    made = choices.of(RUNS)
    for _ in range(choices.of(range(4))):
        made += choices.of(SEPARATORS) + choices.of(RUNS)
    return made


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
@given(st.binary(max_size=24))
def test_every_reference_of_the_grammar_is_read_and_its_short_form_means_the_same(data):
    choices = Choices(data)
    domain, tag, digest = choices.of(DOMAINS), choices.of(TAGS), choices.of([False, True])
    path = [component(choices) for _ in range(choices.of(range(1, 5)))]
    text = "/".join([*([domain] if domain else []), *path])
    text += f":{tag}" if tag else ""
    text += "@sha256:" + "0" * 64 if digest else ""
    assume(len("/".join(path)) < 240)
    # Docker shows docker.io/a.b/c as a.b/c too, which means something else.
    assume(domain not in ("docker.io", "index.docker.io") or not ("." in path[0] or path[0] == "localhost"))
    found = parse(text)
    assert found.tag == tag
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

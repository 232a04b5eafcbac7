import pytest

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

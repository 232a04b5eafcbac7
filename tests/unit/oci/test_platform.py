"""Platforms as users write them."""

import pytest

from barque.base.errors import InvalidInputError
from barque.oci.platform import Platform, host, parse


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("Linux/x86_64", Platform("linux", "amd64")),
        ("linux/arm64", Platform("linux", "arm64", "v8")),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
        ("s390x", Platform("linux", "s390x")),
        ("linux", host()),
        ("windows", host()._replace(os="windows")),
    ],
)
def test_a_platform_is_read(text, platform):
    assert parse(text) == platform


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier'),
        ("nosuch", '"nosuch": unknown operating system or architecture'),
        ("linux//v8", '"" is an invalid component of "linux//v8"'),
        ("linux/$", r'"\$" is an invalid component of "linux/\$"'),
        ("a b", '"a b" is an invalid OS component'),
        ("", '"" is an invalid OS component'),
    ],
)
def test_what_is_no_platform_is_refused(text, why):
    with pytest.raises(InvalidInputError, match=why):
        parse(text)

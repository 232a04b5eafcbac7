"""Who --user means, by texts of passwd and group."""

import pytest

from barque.base.errors import InvalidInputError
from barque.runtime.users import ExecUser, resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
# comment:x:1:1::/:
web:x:33:34:web:/srv/www:/bin/sh
broken line
12:x:700:701::/numbers:/bin/sh
"""
GROUP = "root:x:0:\nwww:x:34:\naudio:x:29:web,other\nvideo:x:44:web\nbad:x:y:web\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", ExecUser(0, 0, (0,), "/root")),
        ("web", ExecUser(33, 34, (34, 29, 44), "/srv/www")),
        ("33", ExecUser(33, 34, (34, 29, 44), "/srv/www")),
        ("web:audio", ExecUser(33, 29, (29,), "/srv/www")),
        ("web:29", ExecUser(33, 29, (29,), "/srv/www")),
        ("1000", ExecUser(1000, 0, (0,), "/")),
        ("1000:2000", ExecUser(1000, 2000, (2000,), "/")),
        ("12", ExecUser(700, 701, (701,), "/numbers")),
        (":audio", ExecUser(0, 29, (29,), "/root")),
        ("web:audio:more", ExecUser(33, 29, (29,), "/srv/www")),
        ("web::video", ExecUser(33, 34, (34, 29, 44), "/srv/www")),
    ],
)
def test_users_are_found_by_name_and_number(user, expected):
    assert resolve(user, PASSWD, GROUP) == expected


def test_additional_groups_are_names_or_numbers():
    assert resolve("web", PASSWD, GROUP, ["root", "999", "29"]).groups == (34, 29, 44, 0, 999)


@pytest.mark.parametrize(
    ("user", "additional", "message"),
    [
        ("nobody", [], "unable to find user nobody: no matching entries in passwd file"),
        ("web:none", [], "unable to find group none: no matching entries in group file"),
        ("", ["none"], "unable to find group none: no matching entries in group file"),
        ("2147483648", [], "uids and gids must be in range 0-2147483647"),
        ("-1", [], "uids and gids must be in range 0-2147483647"),
        ("1:4294967295", [], "uids and gids must be in range 0-2147483647"),
    ],
)
def test_what_cannot_be_found_is_named_as_docker_names_it(user, additional, message):
    with pytest.raises(InvalidInputError, match=f"^{message}$"):
        resolve(user, PASSWD, GROUP, additional)


def test_an_image_without_files_has_root_and_numbers():
    assert resolve("", "", "") == ExecUser(0, 0, (0,), "/")
    assert resolve("5:6", "", "").gid == 6

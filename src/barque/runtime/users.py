"""Who `--user` means: names and numbers looked up in the text of a container's passwd and group.

Pure: the caller reads the files. The rules and messages are Docker's.
"""

from typing import NamedTuple

from barque.base.errors import InvalidInputError

_LARGEST_ID = (1 << 31) - 1


class Passwd(NamedTuple):
    """A line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str


class Group(NamedTuple):
    """A line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


class ExecUser(NamedTuple):
    """The ids a process gets, and its home."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def parse_passwd(text: str) -> list[Passwd]:
    """Return the entries of a passwd file; lines that are none are passed over."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) < 4 or line.lstrip().startswith("#"):
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            found.append(Passwd(fields[0], uid, gid, fields[5] if len(fields) > 5 else ""))
    return found


def parse_group(text: str) -> list[Group]:
    """Return the entries of a group file; lines that are none are passed over."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) < 3 or line.lstrip().startswith("#"):
            continue
        gid = _number(fields[2])
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            found.append(Group(fields[0], gid, tuple(m.strip() for m in members if m.strip())))
    return found


def resolve(user: str, passwd_text: str, group_text: str, additional: list[str] | None = None) -> ExecUser:
    """Return who `user` ("", "name", "uid", "user:group") is, with `additional` groups.

    The primary group leads the supplementary ones, so that rights denied to a group are not won
    back by leaving it out.

    Raises:
        InvalidInputError: a name without an entry, an id out of range.
    """
    # Whatever follows a second colon means nothing, as it does to Docker.
    wanted, wanted_group = [*user.split(":", 2), ""][:2]
    entry, uid = _find_user(wanted, parse_passwd(passwd_text))
    groups = parse_group(group_text)
    gid = entry.gid if entry else 0
    supplementary: list[int] = []
    if wanted_group:
        gid = _find_group(wanted_group, groups)
    elif entry:
        supplementary = [group.gid for group in groups if entry.name in group.members]
    extra = [_find_group(name, groups) for name in additional or []]
    every = list(dict.fromkeys([gid, *supplementary, *extra]))
    return ExecUser(uid, gid, tuple(every), (entry.home if entry else "") or "/")


def _find_user(wanted: str, entries: list[Passwd]) -> tuple[Passwd | None, int]:
    number = _number(wanted)
    for entry in entries:
        if wanted == "" and entry.uid == 0:
            return entry, 0
        if wanted and (entry.name == wanted or entry.uid == number):
            return entry, entry.uid
    if wanted == "":
        return None, 0
    if number is None:
        raise InvalidInputError(f"unable to find user {wanted}: no matching entries in passwd file")
    return None, _in_range(number)


def _find_group(wanted: str, entries: list[Group]) -> int:
    number = _number(wanted)
    for entry in entries:
        if entry.name == wanted or entry.gid == number:
            return entry.gid
    if number is None:
        raise InvalidInputError(f"unable to find group {wanted}: no matching entries in group file")
    return _in_range(number)


def _in_range(number: int) -> int:
    if not 0 <= number <= _LARGEST_ID:
        raise InvalidInputError("uids and gids must be in range 0-2147483647")
    return number


def _number(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("-", "+") else text
    return int(text) if digits.isascii() and digits.isdigit() else None

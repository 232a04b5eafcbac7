"""`--chmod`: octal numbers and symbolic changes such as u=rwX,go=rX."""

import re

from barque.base.errors import InvalidInputError

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXstugo]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


class ModeChange:
    """A change of permission bits.

    Raises:
        InvalidInputError: text is neither an octal number up to 7777 nor symbolic.
    """

    def __init__(self, text: str) -> None:
        self.fixed: int | None = None
        self._clauses: list[tuple[str, list[tuple[str, str]]]] = []
        if re.fullmatch(r"[0-7]+", text) and int(text, 8) <= 0o7777:
            self.fixed = int(text, 8)
            return
        for clause in text.split(","):
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                raise InvalidInputError(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
            self._clauses.append((match[1] or "a", _ACTION.findall(match[2])))

    def apply(self, mode: int, *, folder: bool) -> int:
        """Return the new permission bits of a file or folder that had these."""
        if self.fixed is not None:
            return self.fixed
        for who, actions in self._clauses:
            classes = "ugo" if "a" in who else who
            for operator, permissions in actions:
                mode = _apply(mode, classes, operator, permissions, folder=folder)
        return mode


def _apply(mode: int, classes: str, operator: str, permissions: str, *, folder: bool) -> int:
    bits = special = 0
    for letter in permissions:
        if letter in _BITS:
            bits |= _BITS[letter]
        elif letter == "X":
            bits |= 1 if folder or mode & 0o111 else 0
        elif letter in _SHIFT:
            bits |= mode >> _SHIFT[letter] & 7
        elif letter == "t":
            special |= 0o1000
        else:
            special |= (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
    mask = sum(7 << _SHIFT[name] for name in set(classes))
    wanted = sum(bits << _SHIFT[name] for name in set(classes)) | special
    if operator == "+":
        return mode | wanted
    if operator == "-":
        return mode & ~wanted
    if "u" in classes:
        mask |= 0o4000
    if "g" in classes:
        mask |= 0o2000
    return mode & ~mask | wanted

"""The `--flag=value` words of an instruction."""

from collections.abc import Sequence

from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.text import suggestion

TEXT, TRUTH, TEXTS = "text", "truth", "texts"


class Flags:
    """The flags given to one instruction, checked against those it has.

    Raises:
        DockerfileError: an unknown or repeated flag, or a missing or wrong value.
    """

    def __init__(self, words: Sequence[str], kinds: dict[str, str]) -> None:
        self.given: dict[str, list[str]] = {}
        self._kinds = kinds
        for word in words:
            if word == "--":
                return
            if not word.startswith("--"):
                raise DockerfileError(f"arg should start with -- : {word}")
            self._add(word)

    def _add(self, word: str) -> None:
        shown, equals, value = word.partition("=")
        name = shown[2:]
        kind = self._kinds.get(name)
        if kind is None:
            raise DockerfileError(f"unknown flag: {shown}" + suggestion(name, self._kinds))
        if name in self.given and kind != TEXTS:
            raise DockerfileError(f"duplicate flag specified: {shown}")
        if kind == TRUTH:
            if equals and not value:
                raise DockerfileError(f"missing a value on flag: {shown}")
            value = value.lower() or "true"
            if value not in ("true", "false"):
                given = word.partition("=")[2]
                raise DockerfileError(f"expecting boolean value for flag {shown}, not: {given}")
        elif not equals:
            raise DockerfileError(f"missing a value on flag: {shown}")
        self.given.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        """Return a flag's value."""
        return self.given.get(name, [default])[0]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all values of a flag that may be repeated."""
        return tuple(self.given.get(name, ()))

    def truth(self, name: str) -> bool:
        """Tell whether a flag is given and true."""
        return self.text(name) == "true"

    def choice(self, name: str) -> bool | None:
        """Return a flag's truth, None where it is not given."""
        return self.truth(name) if name in self.given else None

"""What ARG gives: values from the command line, defaults, globals before the first FROM, platforms."""

from collections.abc import Iterable, Mapping

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY",
           "no_proxy", "ALL_PROXY", "all_proxy")  # fmt: skip
SCAN_CONTEXT, SCAN_STAGE = "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"
NO_VARIABLES = (SCAN_CONTEXT, SCAN_STAGE)
"""Arguments that tell the builder something, and no command."""


class Scope:
    """The arguments of one stage.

    Args:
        given: values from outside; None where a name came without one.
        platform: values of TARGETPLATFORM and its kin, which count as global.
    """

    def __init__(self, given: Mapping[str, str | None], platform: Mapping[str, str] | None = None) -> None:
        self._given = given
        self._platform = dict(platform or {})
        self._globals: dict[str, str | None] = {}
        self._declared: dict[str, str | None] = {}
        self._used: set[str] = set()

    def stage(self) -> "Scope":
        """Return the scope of a new stage: globals are known, nothing is declared."""
        made = Scope(self._given, self._platform)
        made._globals = self._globals
        made._used = self._used
        return made

    def copy(self) -> "Scope":
        """Return a scope that goes on from this one."""
        made = self.stage()
        made._declared = dict(self._declared)
        return made

    def declare_global(self, name: str, default: str | None) -> None:
        """Take an ARG that stands before the first FROM."""
        self._globals[name] = default
        self._used.add(name)

    def declare(self, name: str, default: str | None) -> None:
        """Take an ARG of the stage."""
        self._declared[name] = default
        self._used.add(name)

    def global_values(self) -> dict[str, str]:
        """Return what FROM may use."""
        values = {name: value for name in (*self._globals, *PROXIES)
                  if (value := self._value(name, self._globals)) is not None}  # fmt: skip
        return {**self._platform, **values}

    def value(self, name: str) -> str | None:
        """Return the value of an argument that is declared or predefined, None without one."""
        if name not in self._declared and name not in PROXIES:
            return None
        return self._value(name, self._declared)

    def values(self, known: Iterable[str] = ()) -> dict[str, str]:
        """Return all arguments with a value, but those that the names in known hide."""
        hidden = {*known, *NO_VARIABLES}
        names = dict.fromkeys((*self._declared, *PROXIES))
        return {name: value for name in names
                if name not in hidden and (value := self.value(name)) is not None}  # fmt: skip

    def setting(self, name: str) -> str:
        """Return the value of an argument that is declared in the stage or before the first one, empty without one."""
        known = name in self._declared or name in self._globals
        return (self._value(name, self._declared) or "") if known else ""

    def counts(self, name: str) -> bool:
        """Tell whether an argument tells builds apart: a proxy does only where it is declared."""
        return name in self._declared or name not in PROXIES

    def declared(self) -> list[str]:
        """Return the names that are declared."""
        return list(self._declared)

    def unused(self) -> list[str]:
        """Return the names from outside that nothing declared."""
        return sorted(name for name in self._given if name not in self._used and name not in PROXIES)

    def _value(self, name: str, source: Mapping[str, str | None]) -> str | None:
        given = self._given.get(name)
        if given is not None:
            return given
        default = source.get(name)
        if default is None:
            default = self._globals.get(name)
        return self._platform.get(name) if default is None else default

"""Compiled system call filters, one per profile and set of capabilities."""

import json
from collections.abc import Sequence
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError
from barque.kernel.seccomp import compile_profile
from barque.runtime import profiles

Json = dict[str, Any]
_KEPT = 64


class SeccompPrograms:
    """Compiles each filter once.

    Args:
        daemon_profile: path of the profile that stands for the default one; empty or "builtin" is
            Docker's, "unconfined" none.
    """

    def __init__(self, daemon_profile: str) -> None:
        self._unconfined = daemon_profile == "unconfined"
        self._programs: dict[tuple[str, tuple[str, ...]], bytes] = {}
        self._default: Json | None = None
        self._path = "" if daemon_profile in ("", "builtin", "unconfined") else daemon_profile

    @property
    def is_given(self) -> bool:
        """Tell whether the daemon was given a profile of its own."""
        return bool(self._path)

    def program(self, capabilities: Sequence[str], text: str) -> bytes | None:
        """Return the filter for a profile's text ("": the default), None where there is none.

        Raises:
            InvalidInputError: the profile is wrong.
        """
        key = (text, tuple(capabilities))
        if key not in self._programs:
            resolved = self.resolved(capabilities, text)
            if resolved is None:
                return None
            if len(self._programs) >= _KEPT:
                self._programs.clear()
            try:
                self._programs[key] = compile_profile(resolved)
            except (BarqueError, ValueError, KeyError, TypeError) as error:
                raise InvalidInputError(f"seccomp profile: {error}") from error
        return self._programs[key]

    def resolved(self, capabilities: Sequence[str], text: str) -> Json | None:
        """Return linux.seccomp of a profile.

        Raises:
            InvalidInputError: the profile is wrong.
        """
        if text:
            return profiles.resolve(profiles.parse_profile(text), set(capabilities))
        if self._unconfined:
            return None
        if self._default is None:
            self._default = self._read()
        return profiles.resolve(self._default, set(capabilities))

    def _read(self) -> Json:
        if not self._path:
            return profiles.default_profile()
        try:
            with open(self._path, encoding="utf-8") as file:
                return profiles.parse_profile(file.read())
        except (OSError, json.JSONDecodeError) as error:
            raise InvalidInputError(f"opening seccomp profile ({self._path}) failed: {error}") from error

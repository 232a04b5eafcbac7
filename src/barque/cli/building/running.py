"""Running builds: the event loop, the display, the session's services, and what is told and written at the end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.base.files import write_atomic
from barque.builder.buildkit.pb import control_pb2
from barque.cli.building import answers
from barque.cli.building.excerpt import excerpt
from barque.cli.building.link import CONTROL, Link
from barque.cli.building.offers import Agents, Auth, Secrets, read_agents, read_secrets
from barque.cli.building.plain import Plain, Quiet, RawJson
from barque.cli.building.screen import Screen
from barque.cli.building.solve import Builds, SolveError
from barque.cli.building.trace import explained_lines
from barque.cli.connection import config_folder
from barque.cli.credentials import CredentialStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from barque.builder.buildkit.connection import Service
    from barque.cli.building.request import BuildRequest
    from barque.cli.building.temporary import Temporary
    from barque.cli.verb import Invocation

    Shown = Plain | Quiet | RawJson | Screen

_FORMS = ("auto", "plain", "tty", "rawjson", "quiet", "none")
_OURS = "barque"
EXPLAINED = "barque.explain"


class Runner:
    """Runs builds for one call of a verb.

    Args:
        call: the verb's call: its flags say how progress is shown and what is offered to builds.
        temporary: makes folders for files that live as long as the call.
        title: what the display names besides the builder.
    """

    def __init__(self, call: Invocation, temporary: Temporary, title: str = "") -> None:
        self.call = call
        self.temporary = temporary
        options = call.options
        self.explains = options.given("explain")
        if self.explains and options.values.get("explain") not in ("", "json", "text"):
            raise InvalidInputError(f"invalid --explain={options['explain']}: use --explain or --explain=json")
        self._quiet = bool(options.values.get("quiet"))
        self._secrets = read_secrets(options.values.get("secret") or [], os.environ)
        self._agents = read_agents(options.values.get("ssh") or [], os.environ)
        self._form = options["progress"]
        if not options.given("progress") and os.environ.get("BUILDKIT_PROGRESS"):
            self._form = os.environ["BUILDKIT_PROGRESS"]
        if self._form not in _FORMS:
            raise InvalidInputError(f"invalid progress mode {self._form!r}: use one of {', '.join(_FORMS[:-1])}")
        if self._quiet and self._form not in ("auto", "quiet"):
            raise InvalidInputError(f"progress={self._form} and quiet cannot be used together")

    def offer(self, secrets: list[str], agents: list[str]) -> None:
        """Offer builds more secrets and agents, in the form of the flags."""
        self._secrets |= read_secrets(secrets, os.environ)
        self._agents |= read_agents(agents, os.environ)

    def display(self) -> Shown:
        """Return the display that was asked for."""
        out = sys.stderr
        title = 'building with "default" instance using docker driver'
        form = "quiet" if self._quiet else self._form
        if form == "auto":
            form = "tty" if out.isatty() and os.environ.get("TERM") != "dumb" else "plain"
        if form in ("quiet", "none"):
            return Quiet(out)
        if form == "rawjson":
            return RawJson(out)
        if form == "tty":
            return Screen(out, "docker:default", colour=not os.environ.get("NO_COLOR"))
        return Plain(out, title)

    def services(self) -> list[Service]:
        """Return what builds may ask of us besides files."""
        store = CredentialStore(config_folder(self.call.global_options))
        return [Auth(store), Secrets(self._secrets, os.environ), Agents(self._agents)]

    async def open(self, link: Link) -> None:
        """Ask the engine who it is where what is asked for depends on it.

        Raises:
            UnsupportedError: steps shall be explained by an engine that cannot.
        """
        if not self.explains:
            return
        found = await link.call(f"{CONTROL}/Info", control_pb2.InfoRequest(), control_pb2.InfoResponse)
        if found.buildkitVersion.package != _OURS:
            raise UnsupportedError("--explain needs a Barque engine; this one is another: leave the flag out")

    def build(self, request: BuildRequest) -> int:
        """Carry out one build and tell what came of it; return the exit code."""
        display = self.display()
        try:
            ref, response = asyncio.run(self.alone(request, display))
        except KeyboardInterrupt:
            print("ERROR: failed to solve: Canceled: context canceled", file=sys.stderr)
            return 130
        except SolveError as error:
            self.show_failure(error, request)
            return 1
        except BarqueError as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return 1
        if request.call:
            return answers.show(request, response, self.call.options)
        self._finish(request, ref, response)
        return 0

    async def alone(self, request: BuildRequest, display: Shown) -> tuple[str, dict[str, str]]:
        """Carry out one build on a link of its own."""
        async with Link(self.call.api) as link:
            await self.open(link)
            self.prepare(request)
            try:
                return await Builds(link, self.services(), display).run(request)
            finally:
                self.close(display)

    def close(self, display: Shown) -> None:
        """Show the end of the progress, what was explained where the display itself does not, and warnings."""
        display.close()
        if self.explains and isinstance(display, Screen | Quiet) and self.call.options["explain"] != "json":
            for line in explained_lines(display.trace):
                print(line, file=sys.stderr)
        if display.trace.warnings and not self._quiet:
            answers.show_warnings(display.trace.warnings, debug=self.call.global_options["debug"])

    def prepare(self, request: BuildRequest) -> None:
        """Add to a request what the call's flags ask of all builds."""
        if self.explains:
            for one in request.all():
                one.options["build-arg:BARQUE_EXPLAIN"] = "1"

    def show_failure(self, error: SolveError, request: BuildRequest) -> None:
        """Show the place of a failure and its message."""
        for line in excerpt(error.details, request.inputs.dockerfile):
            print(line, file=sys.stderr)
        print(f"ERROR: {error}", file=sys.stderr)

    def _finish(self, request: BuildRequest, ref: str, response: dict[str, str]) -> None:
        options = self.call.options
        identity = response.get("containerimage.config.digest") or response.get("containerimage.digest", "")
        if options["iidfile"]:
            write_atomic(options["iidfile"], identity.encode(), mode=0o644)
        if options["metadata-file"]:
            write_metadata(options["metadata-file"], metadata(ref, response))
        if self.explains and options.values.get("explain") == "json":
            print(json.dumps(json.loads(response.get(EXPLAINED, "[]")), indent=2))
        if self._quiet:
            print(identity)


def told(verb: Callable[[Invocation], int]) -> Callable[[Invocation], int]:
    """Return a verb whose errors are shown as buildx shows them."""

    def run(call: Invocation) -> int:
        try:
            return verb(call)
        except BarqueError as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return 1

    return run


def metadata(ref: str, response: dict[str, str]) -> dict[str, Any]:
    """Return what a build made, as the metadata file has it: JSON in it is unfolded."""
    made: dict[str, Any] = {}
    for key, value in response.items():
        made[key] = value
        for text in (value, _decoded(value)):
            if text.startswith(("{", "[")):
                try:
                    made[key] = json.loads(text)
                except ValueError:
                    continue
                break
    made["buildx.build.ref"] = f"default/default/{ref}"
    return dict(sorted(made.items()))


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:
        return ""


def write_metadata(path: str, value: dict[str, Any]) -> None:
    """Write a metadata file."""
    write_atomic(path, json.dumps(value, indent=2).encode(), mode=0o644)

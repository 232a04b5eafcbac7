"""Provenance: how an image came to be, as SLSA's predicates of BuildKit say it (versions 0.2 and 1)."""

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from barque.builder import graph
from barque.builder.buildkit import places
from barque.builder.buildkit.attestations import Predicate, package_url
from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.option_values import is_true
from barque.builder.shown import without_passwords
from barque.builder.solver import order
from barque.images.store import ImageStore
from barque.images.summaries import manifest_of
from barque.oci import digest as digests, platform as platforms

Json = dict[str, Any]
_KINDS = {"v0.2": "https://slsa.dev/provenance/v0.2", "v1": "https://slsa.dev/provenance/v1"}
_STATEMENTS = {"v0.2": "https://in-toto.io/Statement/v0.1", "v1": "https://in-toto.io/Statement/v1"}
_TYPES = {
    "v0.2": "https://mobyproject.org/buildkit@v1",
    "v1": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
}
_OF_THE_HOST = ("cgroup-parent", "image-resolve-mode", "platform", "cache-imports")
_SECRETIVE = ("build-arg:", "label:")


def predicate(build: Build, vertex: graph.Vertex, store: ImageStore, wish: Mapping[str, str], finished_ns: int) -> Predicate:
    """Return the provenance of what a vertex makes.

    Args:
        build: the build; all that the vertex needs is solved.
        vertex: the last step.
        store: has the images that it started from.
        wish: the parameters that the client gave.
        finished_ns: when it was over.
    """
    version, whole = wish["version"], wish["mode"] == "max"
    locals_ = [{"name": name} for name in sorted(build.session.options.get("transferred", {}))]
    arguments = {
        key: without_passwords(value) for key, value in build.options.items()
        if key not in (*_OF_THE_HOST, "filename", "context") and not key.startswith(("attest:", "vcs:"))
    }  # fmt: skip
    hidden = not whole and any(key.startswith(_SECRETIVE) for key in arguments)
    if not whole:
        arguments = {key: value for key, value in arguments.items() if not key.startswith(_SECRETIVE)}
    request: Json = {"frontend": build.frontend, "args": arguments, "locals": locals_}
    if whole:
        request |= _offered(vertex)
    request = {key: value for key, value in request.items() if value}
    source = {"uri": without_passwords(build.options.get("context", "")), "path": build.options.get("filename", "Dockerfile")}
    vcs = {key.removeprefix("vcs:"): without_passwords(value) for key, value in build.options.items() if key.startswith("vcs:") and value}
    about: Json = {"vcs": vcs} if vcs else {}
    steps: Json | None = None
    if whole:
        listed = order(vertex)
        steps = {"llbDefinition": [_step(one, listed) for one in listed]}
        about["source"] = {"infos": _sources(build)}
        about["layers"] = _layers(build, vertex, store)
    made = {
        "source": {key: value for key, value in source.items() if value}, "request": request, "steps": steps,
        "materials": list(_materials(build, store)), "about": about, "started": _time(build.created_ns),
        "finished": _time(finished_ns), "invocation": build.ref, "builder": wish.get("builder-id", ""),
        "complete": bool(build.frontend) and not hidden, "reproducible": is_true(wish.get("reproducible", "")),
    }  # fmt: skip
    content = _version_1(made) if version == "v1" else _version_02(made)
    file = wish.get("filename") or "provenance.json"
    return Predicate(_KINDS[version], content, file, is_true(wish.get("inline-only", "")), _STATEMENTS[version])


def recorded(store: ImageStore, build: Build) -> dict[str, list[tuple[str, Any]]]:
    """Return what is recorded of how a build's outcome came to be, by platform: kind and content; nothing of a failed one."""
    if build.error:
        return {}
    said: dict[str, list[tuple[str, Any]]] = {}
    for name, vertex in build.outcome.vertices.items():
        found = build.predicates.get(name)
        if not any(one.kind in _KINDS.values() for one in found or []):
            wish = {"version": "v0.2", "mode": "max"}
            found = [predicate(build, vertex, store, wish, build.completed_ns), *(found or [])]
        said[name] = [(one.kind, one.content) for one in found or []]
    return said


def _version_02(made: Json) -> Json:
    source = {"uri": made["source"].get("uri", ""), "entryPoint": made["source"].get("path", "")}
    return {
        "builder": {"id": made["builder"]}, "buildType": _TYPES["v0.2"], "materials": made["materials"],
        "invocation": {
            "configSource": {key: value for key, value in source.items() if value}, "parameters": made["request"],
            "environment": {"platform": str(platforms.usual(platforms.host()))},
        },
        **({"buildConfig": made["steps"]} if made["steps"] else {}),
        "metadata": {
            "buildInvocationID": made["invocation"], "buildStartedOn": made["started"],
            "buildFinishedOn": made["finished"],
            "completeness": {
                "parameters": made["complete"], "environment": True, "materials": not made["request"].get("locals"),
            },
            "reproducible": made["reproducible"], "https://mobyproject.org/buildkit@v1#metadata": made["about"],
        },
    }  # fmt: skip


def _version_1(made: Json) -> Json:
    internal: Json = {"builderPlatform": str(platforms.usual(platforms.host()))}
    if made["steps"]:
        internal["buildConfig"] = made["steps"]
    return {
        "buildDefinition": {
            "buildType": _TYPES["v1"],
            "externalParameters": {"configSource": made["source"], "request": made["request"]},
            "internalParameters": internal, "resolvedDependencies": made["materials"],
        },
        "runDetails": {
            "builder": {"id": made["builder"]},
            "metadata": {
                "invocationId": made["invocation"], "startedOn": made["started"], "finishedOn": made["finished"],
                "buildkit_metadata": made["about"],
                "buildkit_completeness": {
                    "request": made["complete"], "resolvedDependencies": not made["request"].get("locals"),
                },
                **({"buildkit_reproducible": True} if made["reproducible"] else {}),
            },
        },
    }  # fmt: skip


def _materials(build: Build, store: ImageStore) -> Iterator[Json]:
    """Yield what the build took from outside: images, repositories, downloads, with their digests."""
    images = build.session.options.get("images", {})
    for name, platform in sorted(images):
        task = images[name, platform]
        if not task.done() or task.cancelled() or task.exception() is not None:
            continue
        image = task.result()
        wanted = platforms.parse(platform) if platform else platforms.of_config(image.config)
        pulled = [one.rpartition("@")[2] for one in image.digests]
        algorithm, _, value = (pulled[0] if pulled else digests.of(manifest_of(store, image))).partition(":")
        yield {"uri": package_url(name, wanted), "digest": {algorithm: value}}
    for vertex, task in build.session.tasks.items():
        if not isinstance(vertex, graph.Source) or not task.done() or task.cancelled() or task.exception() is not None:
            continue
        scheme, _, rest = vertex.identifier.partition("://")
        identity = task.result().identity
        if scheme == "git":
            yield {"uri": without_passwords(rest), "digest": {"sha1": identity.partition(":")[0]}}
        elif scheme in ("http", "https"):
            yield {"uri": without_passwords(vertex.identifier), "digest": {"sha256": identity}}


def _offered(vertex: graph.Vertex) -> Json:
    """Return the names of the secrets and agents that steps take."""
    found: dict[str, dict[str, Json]] = {"secret": {}, "ssh": {}}
    for step in order(vertex):
        for mount in step.mounts if isinstance(step, graph.Exec) else ():
            if mount.type in found:
                found[mount.type][mount.id] = {"id": mount.id, **({} if mount.required else {"optional": True})}
    return {"secrets": [*found["secret"].values()], "ssh": [*found["ssh"].values()]}


def _sources(build: Build) -> list[Json]:
    named = {name: text for _, name, text in places.remembered(build.session)}
    return [
        {"filename": name, "language": "Dockerfile", "data": base64.b64encode(_encoded(text)).decode()}
        for name, text in named.items()
    ]


def _layers(build: Build, vertex: graph.Vertex, store: ImageStore) -> Json:
    listed = order(vertex)
    found = {}
    for number, step in enumerate(listed):
        task = build.session.tasks.get(step)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            continue
        layers = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff, "size": store.content.size(diff)}
            for _, diff in task.result().layers if store.content.has(diff)
        ]  # fmt: skip
        if layers:
            found[f"step{number}:0"] = [layers]
    return found


def _step(vertex: graph.Vertex, listed: list[graph.Vertex]) -> Json:
    numbers = {one: number for number, one in enumerate(listed)}
    inputs = [f"step{numbers[one]}:0" for one in vertex.inputs]
    made: Json = {"id": f"step{numbers[vertex]}", "op": {"Op": _operation(vertex)}}
    return {**made, "inputs": inputs} if inputs else made


def _operation(vertex: graph.Vertex) -> Json:
    if isinstance(vertex, graph.Source):
        attributes = {key: without_passwords(value) for key, value in vertex.attributes}
        return {"source": {"identifier": without_passwords(vertex.identifier), "attrs": attributes}}
    if isinstance(vertex, graph.Layers):
        return {"source": {"identifier": f"docker-image://{vertex.name.rpartition(' ')[2]}"}}
    if isinstance(vertex, graph.Exec):
        mounts = [{"dest": "/", "input": 0, "output": 0}]
        mounts += [{"dest": one.target, "input": one.input, "mountType": one.type} for one in vertex.mounts]
        meta = {"args": list(vertex.args), "env": list(vertex.env), "cwd": vertex.cwd, "user": vertex.user}
        return {"exec": {"meta": {key: value for key, value in meta.items() if value}, "mounts": mounts}}
    if isinstance(vertex, graph.Files):
        return {"file": {"actions": [_action(one) for one in vertex.actions]}}
    return {type(vertex).__name__.lower(): {}}


def _action(action: graph.Action) -> Json:
    if isinstance(action, graph.CopyFiles):
        return {"copy": {"src": action.source, "dest": action.target}}
    if isinstance(action, graph.MakeFile):
        return {"mkfile": {"path": action.path, "mode": action.mode}}
    if isinstance(action, graph.MakeFolder):
        return {"mkdir": {"path": action.path, "mode": action.mode}}
    if isinstance(action, graph.MakeLink):
        return {"symlink": {"oldpath": action.target, "newpath": action.path}}
    return {"rm": {"path": action.path}}


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat().replace("+00:00", "Z")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

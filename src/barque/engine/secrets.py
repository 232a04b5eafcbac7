"""Secrets and configs of one engine: encrypted on disk, in a container on a tmpfs, changed while it runs."""

import asyncio
import base64
import os
import re
import time
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import new_id
from barque.base.times import format_ns
from barque.engine.container import Container
from barque.engine.filters import check_known, label_matches
from barque.kernel import mount as km

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from barque.engine.engine import Engine

Json = dict[str, Any]
Filters = dict[str, list[str]]
Rows = list[Json]
KINDS = {"secret": ("Secrets", "/run/secrets/", 500 * 1024), "config": ("Configs", "/", 1000 * 1024)}
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?")
_NONCE_BYTES = 12


class Store:
    """The secrets, or the configs, of an engine.

        <data-root>/secrets.key    the key of all values, 32 bytes, for root alone
        table secret               name, id, labels, version, times, sealed value

    A value is sealed with AES-256-GCM; its kind and name are authenticated with it, so that a sealed value
    cannot be moved to another name.
    """

    def __init__(self, engine: "Engine", kind: str) -> None:
        self._engine = engine
        self._kind = kind
        self._field, self._place, self._most = KINDS[kind]
        self._key: bytes | None = None

    def _rows(self) -> dict[str, Json]:
        return self._engine.secret_rows

    def _row_key(self, name: str) -> str:
        return f"{self._kind}/{name}"

    def _cipher(self) -> "AESGCM":
        if self._key is None:
            self._key = load_key(f"{self._engine.config.data_root}/secrets.key")
        # Megabytes that most engines never need.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key)

    async def list(self, filters: Filters) -> Rows:
        """Return all that pass the filters, by name, without values."""
        check_known(filters, {"name", "id", "label", "names"})
        found = []
        for row in sorted(self._rows().values(), key=lambda row: str(row["name"])):
            if row["kind"] != self._kind or not all(label_matches(row["labels"], v) for v in filters.get("label", [])):
                continue
            if filters.get("name") and not any(row["name"].startswith(v) for v in filters["name"]):
                continue
            if filters.get("names") and row["name"] not in filters["names"]:
                continue
            if filters.get("id") and not any(row["id"].startswith(v) for v in filters["id"]):
                continue
            found.append(self._shown(row))
        return found

    async def inspect(self, ref: str) -> Json:
        """Return one; a config's value too.

        Raises:
            NotFoundError: there is none.
        """
        row = self._find(ref)
        shown = self._shown(row)
        if self._kind == "config":
            shown["Spec"]["Data"] = base64.b64encode(self.value(row["name"])).decode()
        return shown

    async def create(self, spec: Json) -> Json:
        """Keep a new one; return {"ID"}.

        Raises:
            InvalidInputError: a bad name or value.
            ConflictError: the name is taken.
        """
        name, labels = spec.get("Name") or "", spec.get("Labels") or {}
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInputError(f"invalid {self._kind} name: only 64 [a-zA-Z0-9-_.] characters allowed, and the "
                                    "start and end character must be [a-zA-Z0-9]")  # fmt: skip
        if self._row_key(name) in self._rows():
            raise ConflictError(f"{self._kind} {name} already exists")
        data = self._decoded(spec)
        now = time.time_ns()
        row: Json = {"kind": self._kind, "name": name, "id": new_id()[:25], "labels": labels, "version": 1,
               "created_ns": now, "updated_ns": now, "sealed": self._seal(name, data)}  # fmt: skip
        await self._write(row)
        self._engine.events.publish(self._kind, "create", row["id"], {"name": name})
        return {"ID": row["id"]}

    async def update(self, ref: str, spec: Json) -> None:
        """Give one another value; containers that run get it at once.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: a bad value.
        """
        row = self._find(ref)
        data = self._decoded(spec)
        fresh = {**row, "sealed": self._seal(row["name"], data), "version": row["version"] + 1,
                 "labels": spec.get("Labels", row["labels"]), "updated_ns": time.time_ns()}  # fmt: skip
        await self._write(fresh)
        self._engine.events.publish(self._kind, "update", row["id"], {"name": row["name"]})
        for container in [*self._engine.containers_by_id.values()]:
            if container.is_running and any(w["Source"] == row["name"] for w in wanted(container, self._kind)):
                await asyncio.to_thread(self._replace, container, row["name"], data)

    async def remove(self, ref: str) -> None:
        """Forget one.

        Raises:
            NotFoundError: there is none.
            ConflictError: a container has it.
        """
        row = self._find(ref)
        users = [c.name for c in self._engine.containers_by_id.values()
                 if any(w["Source"] == row["name"] for w in wanted(c, self._kind))]  # fmt: skip
        if users:
            raise ConflictError(f"{self._kind} '{row['name']}' is in use by the following containers: "
                                f"{', '.join(sorted(users))}")  # fmt: skip
        del self._rows()[self._row_key(row["name"])]
        self._engine.database.delete("secret", self._row_key(row["name"]))
        await self._engine.database.flush()
        self._engine.events.publish(self._kind, "remove", row["id"], {"name": row["name"]})

    def value(self, name: str) -> bytes:
        """Return a value.

        Raises:
            NotFoundError: there is none of this name.
            BarqueError: it was not sealed with our key.
        """
        from cryptography.exceptions import InvalidTag

        row = self._find(name)
        sealed = base64.b64decode(row["sealed"])
        try:
            return self._cipher().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._row_key(name).encode())
        except InvalidTag:
            raise BarqueError(f"the {self._kind} {name} cannot be read: it was not sealed with this engine's key") \
                from None  # fmt: skip

    def check(self, host: Json) -> None:
        """Refuse a container's wishes that cannot be.

        Raises:
            InvalidInputError: a malformed wish.
            NotFoundError: one does not exist.
        """
        targets: set[str] = set()
        for item in host.get(self._field) or []:
            self._find(str(item.get("Source") or ""))
            target = place_of(self._kind, item)
            if target in targets:
                raise InvalidInputError(f"two {self._kind}s at {target}")
            if target.endswith("/") or "/../" in target + "/":
                raise InvalidInputError(f"invalid target of a {self._kind}: {item.get('Target')}")
            targets.add(target)
            mode = item.get("Mode")
            if mode is not None and not 0 <= mode <= 0o7777:
                raise InvalidInputError(f"invalid mode of a {self._kind}: {mode}")

    def _decoded(self, spec: Json) -> bytes:
        try:
            data = base64.b64decode(spec.get("Data") or "", validate=True)
        except (ValueError, TypeError):
            raise InvalidInputError(f"the value of a {self._kind} must be base64") from None
        if not 0 < len(data) <= self._most:
            raise InvalidInputError(f"{self._kind} data must be larger than 0 and at most {self._most} bytes")
        return data

    def _seal(self, name: str, data: bytes) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher().encrypt(nonce, data, self._row_key(name).encode())).decode()

    async def _write(self, row: Json) -> None:
        rows, key = self._rows(), self._row_key(row["name"])
        before = rows.get(key)
        rows[key] = row
        self._engine.database.put("secret", key, row)
        try:
            await self._engine.database.flush()
        except BarqueError:
            if before is None:
                del rows[key]
                self._engine.database.delete("secret", key)
            else:
                rows[key] = before
                self._engine.database.put("secret", key, before)
            raise

    def _find(self, ref: str) -> Json:
        row = self._rows().get(self._row_key(ref))
        if row is not None:
            return row
        found = [r for r in self._rows().values() if r["kind"] == self._kind and ref and r["id"].startswith(ref)]
        if len(found) != 1:
            raise NotFoundError(f"{self._kind} {ref} not found")
        return found[0]

    def _shown(self, row: Json) -> Json:
        return {
            "ID": row["id"], "Version": {"Index": row["version"]}, "CreatedAt": format_ns(row["created_ns"]),
            "UpdatedAt": format_ns(row["updated_ns"]), "Spec": {"Name": row["name"], "Labels": dict(row["labels"])},
        }  # fmt: skip

    def _replace(self, container: Container, name: str, data: bytes) -> None:
        folder = folder_of(self._engine, container)
        for number, item in enumerate(wanted(container, self._kind)):
            if item["Source"] == name:
                # In place: what the container has bound is this file.
                with open(f"{folder}/{self._kind}.{number}", "r+b") as file:
                    file.write(data)
                    file.truncate()

    def give(self, container: Container) -> Rows:
        """Write what a container wants on its tmpfs; return the mounts that show it, read-only."""
        points = []
        folder = folder_of(self._engine, container)
        for number, item in enumerate(wanted(container, self._kind)):
            path = f"{folder}/{self._kind}.{number}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(self.value(item["Source"]))
                os.fchown(fd, int(item.get("UID") or 0), int(item.get("GID") or 0))
                os.fchmod(fd, item["Mode"] if item.get("Mode") is not None else 0o444)
            points.append({"Type": "bind", "Destination": place_of(self._kind, item), "Source": path, "path": path,
                           "RW": False, "Propagation": "rprivate", "non_recursive": True})  # fmt: skip
        return points


def wanted(container: Container, kind: str) -> Rows:
    """Return the secrets or configs that a container was created with."""
    return container.host.get(KINDS[kind][0]) or []


def place_of(kind: str, item: Json) -> str:
    """Return where a container sees one: beside the others, or at an absolute target."""
    target = str(item.get("Target") or item.get("Source") or "")
    return target if target.startswith("/") else KINDS[kind][1] + target


def folder_of(engine: "Engine", container: Container) -> str:
    """Return the folder on which a container's tmpfs is mounted."""
    return f"{engine.bundle(container.id)}/secrets"


def give(engine: "Engine", container: Container) -> list[Json]:
    """Mount the tmpfs of a container that wants secrets or configs; return the mounts that show them.

    Raises:
        BarqueError: one is gone.
        OSError: no memory, or no mount.
    """
    if not any(wanted(container, kind) for kind in KINDS):
        return []
    folder = folder_of(engine, container)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    flags = km.MS_NOSUID | km.MS_NODEV | km.MS_NOEXEC
    try:
        km.mount("secrets", folder, "tmpfs", flags, "mode=700,noswap")
    except OSError:
        # Before Linux 6.4 it may be swapped out.
        km.mount("secrets", folder, "tmpfs", flags, "mode=700")
    return [point for store in (engine.secrets, engine.configs) for point in store.give(container)]


def take(engine: "Engine", container: Container) -> None:
    """Take a container's tmpfs away, once it has ended."""
    folder = folder_of(engine, container)
    if os.path.isdir(folder):
        km.unmount_below(folder)
        os.rmdir(folder)


def load_key(path: str) -> bytes:
    """Return the engine's key, made now where there is none.

    Raises:
        BarqueError: the file is no key.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        with open(path, "rb") as file:
            key = file.read(64)
        if len(key) != 32:
            raise BarqueError(f"{path} is no key of 32 bytes") from None
        return key
    key = os.urandom(32)
    with open(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(fd)
    return key

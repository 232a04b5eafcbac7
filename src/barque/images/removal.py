"""Removing images: names first, content when nothing needs it, untagged parents with it."""

from collections.abc import Sequence
from typing import NamedTuple

from barque.base.errors import ConflictError
from barque.base.ids import short
from barque.images.model import Image, Json
from barque.images.store import ImageStore
from barque.oci.platform import Platform
from barque.oci.reference import parse


class User(NamedTuple):
    """A container that uses an image."""

    id: str
    image_id: str
    running: bool


def remove(store: ImageStore, ref: str, *, force: bool, prune: bool, users: Sequence[User]) -> list[Json]:
    """Remove a name, or an image by id; return what went as `Untagged` and `Deleted` rows.

    Args:
        store: where it is.
        ref: what the user typed.
        force: untag although containers use it; by id take all its names.
        prune: delete untagged parents too.
        users: all containers.

    Raises:
        NotFoundError: no such image.
        ConflictError: containers, children or several names forbid it.
    """
    with store.changing, store.lock:
        image = store.resolve(ref)
        name = store.name_of(ref)
        rows: list[Json] = []
        using = [u for u in users if u.image_id == image.id]
        kept_with_it = _other_platforms(store, [name] if name else [*image.names, *image.digests])
        if name:
            _untag_one(store, image, name, force=force, using=using, rows=rows, typed=ref)
        else:
            _untag_by_id(store, image, force=force, using=using, rows=rows)
        image = store.resolve(image.id)
        for one in (image, *kept_with_it):
            if not _needed(store, one, users):
                _delete(store, store.resolve(one.id), prune=prune, users=users, rows=rows)
        return rows


def remove_platform(store: ImageStore, ref: str, wanted: Platform, *, force: bool, users: Sequence[User]) -> list[Json]:
    """Remove one platform of the image that a name means; its name stays while another platform is here.

    Raises:
        NotFoundError: no such image, or not for that platform.
        ConflictError: containers use it.
    """
    with store.changing, store.lock:
        image, name = store.resolve_platform(ref, wanted), store.name_of(ref)
        others = [i for i in (store.resolve(ref), *store.siblings(name)) if i.id != image.id]
        if not others:
            return remove(store, ref, force=force, prune=True, users=users)
        using = [u for u in users if u.image_id == image.id]
        if using and not (force and not any(u.running for u in using)):
            raise ConflictError(
                f"conflict: unable to delete {short(image.id)} (must be forced) - "
                f"container {short(using[0].id)} is using its referenced image {short(image.id)}"
            )
        for full in (*image.names, *image.digests):
            if store.target(full) == store.target(name):
                store.set_name(parse(full), others[0].id, store.target(full))
        rows: list[Json] = []
        image = store.resolve(image.id)
        if not (image.names or image.digests or store.children(image.id)):
            _delete(store, image, prune=False, users=users, rows=rows)
        return rows


def _other_platforms(store: ImageStore, names: Sequence[str]) -> list[Image]:
    """Return the images that are here only because an index of these names has them."""
    found = {i.id: i for name in names for i in store.siblings(name)}
    return list(found.values())


def _is_wanted(store: ImageStore, image: Image, others: Sequence[Image], used: set[str]) -> bool:
    """Return whether pruning passes an image by: it or another platform's is used, or another's names keep it."""
    if used & {image.id, *(other.id for other in others)}:
        return True
    return not image.names and not image.digests and image.id in store.covered()


def _needed(store: ImageStore, image: Image, users: Sequence[User]) -> bool:
    image = store.resolve(image.id)
    if image.names or image.digests or store.children(image.id) or any(u.image_id == image.id for u in users):
        return True
    return image.id in store.covered()


def _children_first(store: ImageStore, images: Sequence[Image]) -> list[Image]:
    """Return the images so that each comes before the one it was made from, which then has no children left."""
    parents = {image.id: image.parent for image in store.images()}

    def generation(image: Image) -> int:
        count, above = 0, image.parent
        while above in parents and count <= len(parents):
            count, above = count + 1, parents[above]
        return count

    return sorted(images, key=generation, reverse=True)


def prune(store: ImageStore, unused: Sequence[Image], users: Sequence[User]) -> tuple[list[Json], int]:
    """Remove the given images where nothing uses them; return the rows and the bytes won.

    An image that others were made from loses its names; its content stays for them.
    """
    rows: list[Json] = []
    with store.changing:
        before = store.layers_size()
        used = {u.image_id for u in users}
        for chosen in _children_first(store, unused):
            names = [*chosen.names, *chosen.digests]
            others = _other_platforms(store, names)
            if _is_wanted(store, chosen, others, used) or chosen not in store.images():
                continue
            for name in names:
                store.untag(name)
                rows.append({"Untagged": parse(name).familiar})
            for one in (chosen, *others):
                if not _needed(store, one, users):
                    _delete(store, store.resolve(one.id), prune=False, users=users, rows=rows)
        return rows, max(0, before - store.layers_size())


def would_prune(store: ImageStore, unused: Sequence[Image], users: Sequence[User]) -> tuple[list[Json], int]:
    """Return what `prune` would, and change nothing."""
    rows: list[Json] = []
    used = {u.image_id for u in users}
    gone: set[str] = set()
    with store.changing:
        for chosen in _children_first(store, unused):
            names = [*chosen.names, *chosen.digests]
            others = _other_platforms(store, names)
            if chosen.id in gone or _is_wanted(store, chosen, others, used):
                continue
            rows += [{"Untagged": parse(name).familiar} for name in names]
            for one in (chosen, *(o for o in others if not o.names and not o.digests and o.id not in gone)):
                if gone.issuperset(store.children(one.id)):
                    gone.add(one.id)
                    rows.append({"Deleted": one.id})
        kept = {layer for image in store.images() if image.id not in gone for layer in image.chain}
        free = {layer for image in store.images() for layer in image.chain} - kept
        return rows + [{"Deleted": layer} for layer in sorted(free)], sum(store.layer_size(layer) for layer in free)


def _untag_one(
    store: ImageStore,
    image: Image,
    name: str,
    *,
    force: bool,
    using: Sequence[User],
    rows: list[Json],
    typed: str,
) -> None:
    last = len(image.names) + len(_pinned(image)) == 1 or image.names == (name,)
    if last and using and not force:
        raise ConflictError(
            f"conflict: unable to delete {parse(typed).with_default_tag().familiar} "
            f"(must be forced) - container {short(using[0].id)} is using its "
            f"referenced image {short(image.id)}"
        )
    store.untag(name)
    removed = parse(name)
    rows.append({"Untagged": removed.familiar})
    if removed.digest or any(parse(n).name == removed.name for n in image.names if n != name):
        return
    # Digests of a repository go with its last tag: nobody typed them.
    for pinned in image.digests:
        if parse(pinned).name == removed.name:
            store.untag(pinned)
            rows.append({"Untagged": parse(pinned).familiar})


def _untag_by_id(store: ImageStore, image: Image, *, force: bool, using: Sequence[User], rows: list[Json]) -> None:
    stem = f"conflict: unable to delete {short(image.id)}"
    running = [u for u in using if u.running]
    if running:
        raise ConflictError(
            f"{stem} (cannot be forced) - image is being used by running container {short(running[0].id)}"
        )
    if store.children(image.id):
        raise ConflictError(f"{stem} (cannot be forced) - image has dependent child images")
    if len(image.names) > 1 and not force:
        raise ConflictError(f"{stem} (must be forced) - image is referenced in multiple repositories")
    if using and not force:
        raise ConflictError(f"{stem} (must be forced) - image is being used by stopped container {short(using[0].id)}")
    for name in (*image.names, *image.digests):
        store.untag(name)
        rows.append({"Untagged": parse(name).familiar})


def _pinned(image: Image) -> list[str]:
    """Return the names with a digest whose repository has no tag of the image."""
    tagged = {parse(n).name for n in image.names}
    return [d for d in image.digests if parse(d).name not in tagged]


def _delete(store: ImageStore, image: Image, *, prune: bool, users: Sequence[User], rows: list[Json]) -> None:
    while True:
        layers = store.delete(image.id)
        rows.append({"Deleted": image.id})
        rows += [{"Deleted": layer} for layer in layers]
        parent = next((i for i in store.images() if i.id == image.parent), None)
        if parent is None or not prune or parent.names or parent.digests:
            return
        if store.children(parent.id) or any(u.image_id == parent.id for u in users):
            return
        image = parent

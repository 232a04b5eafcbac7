"""Images in the API's shapes: rows of a list, inspection, history; and the filters of lists."""

from collections import Counter
from collections.abc import Sequence

from barque.base.errors import InvalidInputError, NotFoundError
from barque.base.times import format_ns, parse_ns, until_ns
from barque.images.model import Image, Json
from barque.images.store import ImageStore
from barque.oci.reference import parse

_KNOWN = frozenset({"dangling", "label", "label!", "before", "since", "reference", "until"})


def select(store: ImageStore, filters: dict[str, list[str]], *, everything: bool) -> list[Image]:
    """Return the images that pass the filters, newest first; intermediate ones only if asked.

    Raises:
        InvalidInputError: an unknown filter or a bad value.
        NotFoundError: before or since name no image.
    """
    for name in filters:
        if name not in _KNOWN:
            raise InvalidInputError(f"invalid filter '{name}'")
    images = store.images()
    dangling = _flag(filters, "dangling")
    # An image of another platform belongs to the image that has their common name.
    parents = {i.parent for i in images} | store.covered()
    if dangling is not None:
        images = [i for i in images if (not i.names and i.id not in parents) == dangling]
    elif not everything:
        images = [i for i in images if i.names or i.digests or i.id not in parents]
    for ref in filters.get("before", []):
        limit = store.resolve(ref)
        images = [i for i in images if i.created_ns < limit.created_ns and i.id != limit.id]
    for ref in filters.get("since", []):
        limit = store.resolve(ref)
        images = [i for i in images if i.created_ns > limit.created_ns and i.id != limit.id]
    for text in filters.get("until", []):
        until = until_ns(text)
        images = [i for i in images if i.created_ns < until]
    images = [i for i in images if _labelled(i, filters)]
    patterns = filters.get("reference", [])
    return [i for i in images if not patterns or matching(i, patterns)]


def matching(image: Image, patterns: Sequence[str]) -> list[str]:
    """Return the full names that a `reference` filter keeps; patterns are those of Go's path.Match.

    Raises:
        InvalidInputError: a pattern is malformed.
    """
    from barque.dockerfile.patterns import wildcard

    kept = []
    expressions = [wildcard(pattern) for pattern in patterns]
    for full in (*image.names, *image.digests):
        reference = parse(full)
        shown = (reference.familiar, reference.familiar_name, full, reference.name)
        if any(expression.match(text) for text in shown for expression in expressions):
            kept.append(full)
    return kept


def row(image: Image, *, containers: int, shared: int, names: Sequence[str] | None = None) -> Json:
    """Return the image as one row of the list."""
    kept = image.names if names is None else tuple(n for n in names if "@" not in n)
    pinned = image.digests if names is None else tuple(n for n in names if "@" in n)
    return {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": [parse(n).familiar for n in kept],
        "RepoDigests": [parse(n).familiar for n in pinned],
        "Created": image.created_ns // 1_000_000_000,
        "Size": image.size,
        "SharedSize": shared,
        "Labels": image.run_config.get("Labels"),
        "Containers": containers,
    }


def shared_sizes(store: ImageStore) -> dict[str, int]:
    """Return for every image the bytes of its layers that other images have too."""
    images = store.images()
    count = Counter(chain for image in images for chain in image.chain)
    sizes = {chain: store.layer_size(chain) for chain in count}
    return {i.id: sum(sizes[c] for c in i.chain if count[c] > 1) for i in images}


def inspect(store: ImageStore, image: Image) -> Json:
    """Return everything about an image."""
    config = image.config
    shown: Json = {
        "Id": image.id,
        "RepoTags": [parse(n).familiar for n in image.names],
        "RepoDigests": [parse(n).familiar for n in image.digests],
        "Parent": image.parent,
        "Comment": config.get("comment", ""),
        "Created": config.get("created") or "0001-01-01T00:00:00Z",
        "DockerVersion": config.get("docker_version", ""),
        "Author": config.get("author", ""),
        "Config": _run_config(image),
        "Architecture": config.get("architecture", ""),
        "Os": config.get("os", ""),
        "Size": image.size,
        "GraphDriver": {"Name": store.snapshots.driver, "Data": _folders(store, image)},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": format_ns(image.tagged_ns) if image.tagged_ns else "0001-01-01T00:00:00Z"},
    }
    if config.get("variant"):
        shown["Variant"] = config["variant"]
    return shown


def history(store: ImageStore, image: Image) -> list[Json]:
    """Return how the image came to be, newest step first, with each step's bytes."""
    steps = [dict(step) for step in image.config.get("history") or []]
    # A layer without a step of its own still takes room: it is shown.
    missing = len(image.chain) - sum(not step.get("empty_layer") for step in steps)
    steps += [{} for _ in range(missing)]
    chain = iter(image.chain)
    ids = _ids_by_layers(store, image)
    rows = []
    position = 0
    for step in steps:
        layer = "" if step.get("empty_layer") else next(chain, "")
        position += bool(layer)
        rows.append(
            {
                "Id": "<missing>",
                "Created": _seconds(step.get("created")),
                "CreatedBy": step.get("created_by", ""),
                "Tags": None,
                "Size": store.layer_size(layer) if layer else 0,
                "Comment": step.get("comment", ""),
            }
        )
    rows.reverse()
    remaining = len(steps)
    for ancestor in ids:
        length = max(1, len(ancestor.config.get("history") or []))
        at = len(steps) - min(length, remaining) if ancestor is not image else 0
        if 0 <= at < len(rows):
            rows[at]["Id"] = ancestor.id
            rows[at]["Tags"] = [parse(n).familiar for n in ancestor.names] or None
    return rows


def _ids_by_layers(store: ImageStore, image: Image) -> list[Image]:
    """Return the image and its local ancestors."""
    known = {i.id: i for i in store.images()}
    found = [image]
    while found[-1].parent in known:
        found.append(known[found[-1].parent])
    return found


def _run_config(image: Image) -> Json:
    shown: Json = {"User": "", "Env": None, "Cmd": None, "WorkingDir": "", "Entrypoint": None}
    shown |= {"Volumes": None, "OnBuild": None, "Labels": None}
    return shown | image.run_config


def _folders(store: ImageStore, image: Image) -> Json | None:
    if not image.top:
        return None
    try:
        upper, *lower = store.snapshots.places(image.top)
    except NotFoundError:
        return None
    return {"UpperDir": upper, "LowerDir": ":".join(lower)} if lower else {"UpperDir": upper}


def _seconds(text: object) -> int:
    try:
        return parse_ns(str(text or "")) // 1_000_000_000
    except ValueError:
        return 0


def _flag(filters: dict[str, list[str]], name: str) -> bool | None:
    values = filters.get(name)
    if not values:
        return None
    answers = {_truth(value, name) for value in values}
    if len(answers) != 1:
        raise InvalidInputError(f"invalid filter '{name}={values}'")
    return answers.pop()


def _truth(text: str, name: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidInputError(f"invalid filter '{name}=[{text}]'")


def _labelled(image: Image, filters: dict[str, list[str]]) -> bool:
    labels = image.run_config.get("Labels") or {}

    def has(text: str) -> bool:
        key, equals, value = text.partition("=")
        return key in labels and (not equals or labels[key] == value)

    wanted = all(has(text) for text in filters.get("label", []))
    return wanted and not any(has(text) for text in filters.get("label!", []))

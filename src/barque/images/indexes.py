"""Names that mean images of several platforms: by the index that they were pulled by, or built as."""

from __future__ import annotations

from barque.base.errors import NotFoundError
from barque.images.catalogue import Catalogue
from barque.images.model import Image
from barque.oci import manifest as manifests, platform as platforms
from barque.storage.content import ContentStore


class IndexedCatalogue(Catalogue):
    """A catalogue that reads the indexes which names point to; `content` holds them."""

    def __init__(self, data_root: str, content: ContentStore) -> None:
        super().__init__(data_root)
        self.content = content

    def resolve_platform(self, ref: str, wanted: platforms.Platform) -> Image:
        """Return the image that ref means on a platform: the one it means, or another of its index.

        Raises:
            InvalidInputError: ref is malformed.
            NotFoundError: there is none, or none for the platform.
        """
        with self.lock:
            image = self.resolve(ref)
            choices = [image, *self.siblings(self._full_name(ref))]
        for choice in choices:
            if platforms.fits(platforms.of_config(choice.config), wanted):
                return choice
        found = platforms.of_config(image.config)
        raise NotFoundError(
            f"image with reference {ref} was found but its platform ({found}) "
            f"does not match the specified platform ({wanted})"
        )

    def siblings(self, full_name: str) -> list[Image]:
        """Return the other platforms' images of the index that a name was pulled by."""
        with self.lock:
            own = self._names.get(full_name, "")
            found = {self._manifests.get(d, "") for d in self._members(self.target(full_name))}
            return [self._images[i] for i in sorted(found - {own, ""}) if i in self._images]

    def covered(self) -> set[str]:
        """Return the ids of all images in the indexes that names mean, with those that have these names."""
        with self.lock:
            members = {m for target in set(self._targets.values()) for m in self._members(target)}
            return {i for m in members if (i := self._manifests.get(m, ""))}

    def manifests_meant(self, full_name: str) -> set[str]:
        """Return the digests of the manifests that a name means: the one it was pulled by, or those of its index."""
        with self.lock:
            target = self.target(full_name)
            return {target, *self._members(target)} - {""}

    def _members(self, target: str) -> list[str]:
        """Return the digests of the manifests in an index; none for a manifest."""
        if not target or self._manifests.get(target, "") != "" or not self.content.has(target):
            return []
        parsed = manifests.parse(self.content.read(target))
        return [m.digest for m in parsed.manifests] if isinstance(parsed, manifests.Index) else []

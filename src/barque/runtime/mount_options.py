"""The words of a mount's `options`, and what each means to the kernel."""

from typing import NamedTuple

from barque.kernel import mount as km

# word -> (flags of mount(2), whether the word clears them)
_FLAGS: dict[str, tuple[int, bool]] = {
    "async": (km.MS_SYNCHRONOUS, True),
    "atime": (km.MS_NOATIME, True),
    "bind": (km.MS_BIND, False),
    "defaults": (0, False),
    "dev": (km.MS_NODEV, True),
    "diratime": (km.MS_NODIRATIME, True),
    "dirsync": (km.MS_DIRSYNC, False),
    "exec": (km.MS_NOEXEC, True),
    "iversion": (km.MS_I_VERSION, False),
    "lazytime": (km.MS_LAZYTIME, False),
    "loud": (km.MS_SILENT, True),
    "mand": (km.MS_MANDLOCK, False),
    "noatime": (km.MS_NOATIME, False),
    "nodev": (km.MS_NODEV, False),
    "nodiratime": (km.MS_NODIRATIME, False),
    "noexec": (km.MS_NOEXEC, False),
    "noiversion": (km.MS_I_VERSION, True),
    "nolazytime": (km.MS_LAZYTIME, True),
    "nomand": (km.MS_MANDLOCK, True),
    "norelatime": (km.MS_RELATIME, True),
    "nostrictatime": (km.MS_STRICTATIME, True),
    "nosuid": (km.MS_NOSUID, False),
    "nosymfollow": (km.MS_NOSYMFOLLOW, False),
    "rbind": (km.MS_BIND | km.MS_REC, False),
    "relatime": (km.MS_RELATIME, False),
    "remount": (km.MS_REMOUNT, False),
    "ro": (km.MS_RDONLY, False),
    "rw": (km.MS_RDONLY, True),
    "silent": (km.MS_SILENT, False),
    "strictatime": (km.MS_STRICTATIME, False),
    "suid": (km.MS_NOSUID, True),
    "symfollow": (km.MS_NOSYMFOLLOW, True),
    "sync": (km.MS_SYNCHRONOUS, False),
}
PROPAGATION: dict[str, int] = {
    "private": km.MS_PRIVATE,
    "rprivate": km.MS_PRIVATE | km.MS_REC,
    "shared": km.MS_SHARED,
    "rshared": km.MS_SHARED | km.MS_REC,
    "slave": km.MS_SLAVE,
    "rslave": km.MS_SLAVE | km.MS_REC,
    "unbindable": km.MS_UNBINDABLE,
    "runbindable": km.MS_UNBINDABLE | km.MS_REC,
}
# word without its leading "r" -> (attributes set, attributes cleared)
_ATTRS: dict[str, tuple[int, int]] = {
    "ro": (km.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, km.MOUNT_ATTR_RDONLY),
    "nosuid": (km.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, km.MOUNT_ATTR_NOSUID),
    "nodev": (km.MOUNT_ATTR_NODEV, 0),
    "dev": (0, km.MOUNT_ATTR_NODEV),
    "noexec": (km.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, km.MOUNT_ATTR_NOEXEC),
    "nodiratime": (km.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, km.MOUNT_ATTR_NODIRATIME),
    "relatime": (km.MOUNT_ATTR_RELATIME, km.MOUNT_ATTR__ATIME),
    "norelatime": (km.MOUNT_ATTR_STRICTATIME, km.MOUNT_ATTR__ATIME),
    "noatime": (km.MOUNT_ATTR_NOATIME, km.MOUNT_ATTR__ATIME),
    "atime": (km.MOUNT_ATTR_RELATIME, km.MOUNT_ATTR__ATIME),
    "strictatime": (km.MOUNT_ATTR_STRICTATIME, km.MOUNT_ATTR__ATIME),
    "nostrictatime": (km.MOUNT_ATTR_RELATIME, km.MOUNT_ATTR__ATIME),
    "nosymfollow": (km.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, km.MOUNT_ATTR_NOSYMFOLLOW),
}
_MS_TO_ATTR: tuple[tuple[int, int], ...] = (
    (km.MS_RDONLY, km.MOUNT_ATTR_RDONLY),
    (km.MS_NOSUID, km.MOUNT_ATTR_NOSUID),
    (km.MS_NODEV, km.MOUNT_ATTR_NODEV),
    (km.MS_NOEXEC, km.MOUNT_ATTR_NOEXEC),
    (km.MS_NODIRATIME, km.MOUNT_ATTR_NODIRATIME),
    (km.MS_NOSYMFOLLOW, km.MOUNT_ATTR_NOSYMFOLLOW),
)


class MountOptions(NamedTuple):
    """A mount's options, sorted by the system call that takes them."""

    flags: int
    cleared: int
    propagation: tuple[int, ...]
    attr: km.MountAttr
    recursive_attr: km.MountAttr
    data: str
    copy_up: bool
    idmap: str
    copy_symlink: bool


def parse(options: list[str]) -> MountOptions:
    """Sort `options`; words nobody knows are the file system's own data."""
    flags = cleared = recursive_set = recursive_clear = 0
    propagation: list[int] = []
    data: list[str] = []
    idmap = ""
    for word in options:
        if word in _FLAGS:
            bits, clears = _FLAGS[word]
            flags, cleared = (flags & ~bits, cleared | bits) if clears else (flags | bits, cleared & ~bits)
        elif word in PROPAGATION:
            propagation.append(PROPAGATION[word])
        elif word[:1] == "r" and word[1:] in _ATTRS:
            on, off = _ATTRS[word[1:]]
            recursive_set = recursive_set & ~off | on
            recursive_clear |= off
        elif word in ("idmap", "ridmap"):
            idmap = word
        elif word not in ("tmpcopyup", "copy-symlink"):
            data.append(word)
    return MountOptions(
        flags,
        cleared,
        tuple(propagation),
        _attributes(flags, cleared),
        km.MountAttr(set=recursive_set, clear=recursive_clear),
        ",".join(data),
        "tmpcopyup" in options,
        idmap,
        "copy-symlink" in options,
    )


def _attributes(flags: int, cleared: int) -> km.MountAttr:
    on = off = 0
    for ms, attr in _MS_TO_ATTR:
        if flags & ms:
            on |= attr
        if cleared & ms:
            off |= attr
    if flags & (km.MS_NOATIME | km.MS_STRICTATIME | km.MS_RELATIME):
        off |= km.MOUNT_ATTR__ATIME
        if flags & km.MS_NOATIME:
            on |= km.MOUNT_ATTR_NOATIME
        elif flags & km.MS_STRICTATIME:
            on |= km.MOUNT_ATTR_STRICTATIME
    elif cleared & (km.MS_NOATIME | km.MS_STRICTATIME | km.MS_RELATIME):
        off |= km.MOUNT_ATTR__ATIME
        if cleared & km.MS_RELATIME:
            on |= km.MOUNT_ATTR_STRICTATIME
    return km.MountAttr(set=on, clear=off)


def names() -> set[str]:
    """Return the mount options that do not go to the file system as data."""
    return {*_FLAGS, *PROPAGATION, *(f"r{word}" for word in _ATTRS), "tmpcopyup", "idmap", "ridmap"}

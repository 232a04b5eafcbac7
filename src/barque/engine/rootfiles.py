"""Reading small files of a container's root before it runs."""

import errno
import os
import posixpath
import stat
from collections.abc import Sequence

from barque.base.errors import BarqueError, InvalidInputError
from barque.kernel.openat2 import RESOLVE_NO_SYMLINKS, open_in_root
from barque.runtime.root import open_or_make
from barque.runtime.users import ExecUser, resolve
from barque.storage.mounts import mounted, root_of_process
from barque.storage.snapshots import Snapshotter

_LARGEST = 4 << 20


def user_of_snapshot(snapshots: Snapshotter, key: str, user: str, groups: Sequence[str]) -> ExecUser:
    """Return who `user` is by the passwd and group files of a snapshot.

    Raises:
        InvalidInputError: a name that is not there.
    """
    passwd, group = _files(snapshots, key)
    return resolve(user, passwd, group, list(groups))


def user_of_process(pid: int, user: str, groups: Sequence[str]) -> ExecUser:
    """Return who `user` is by the files of a running container.

    Raises:
        InvalidInputError: a name that is not there.
    """
    with root_of_process(pid) as root:
        return resolve(user, text_of(root, "/etc/passwd"), text_of(root, "/etc/group"), list(groups))


def make_working_folder(snapshots: Snapshotter, key: str, path: str) -> None:
    """Make the folder that a container's program starts in where its image has none, so that files can be copied there before.

    Raises:
        BarqueError: something else lies there.
        OSError: the disk is full or read-only.
    """
    with mounted(snapshots.mounts(key)) as root:
        try:
            fd = open_or_make(root, posixpath.normpath(path), folder=True)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise BarqueError(f"mkdir {path}: not a directory") from None
            raise
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise BarqueError(f"Cannot mkdir: {path} is not a directory")
        finally:
            os.close(fd)


def _files(snapshots: Snapshotter, key: str) -> tuple[str, str]:
    """Look into the layers one by one, which needs no mount; odd layouts are looked at mounted."""
    folders = [snapshots.layer_dir(key), *snapshots.lower_dirs(key)]
    found = [_in_layers(folders, name) for name in ("etc/passwd", "etc/group")]
    if None not in found:
        return found[0] or "", found[1] or ""
    with mounted(snapshots.mounts(key)) as root:
        return text_of(root, "/etc/passwd"), text_of(root, "/etc/group")


def _in_layers(folders: Sequence[str], name: str) -> str | None:
    """Return the uppermost layer's text, empty where no layer has it, None where links are in play."""
    for folder in folders:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = open_in_root(root, name, os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)
        except FileNotFoundError:
            if _opaque(root):
                return None
            continue
        except OSError:
            return None
        finally:
            os.close(root)
        return _text(fd)
    return ""


def _opaque(root: int) -> bool:
    try:
        fd = open_in_root(root, "etc", os.O_RDONLY, resolve=RESOLVE_NO_SYMLINKS)
    except OSError:
        return False
    try:
        return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)


def text_of(root: int, name: str) -> str:
    """Return the text of a small file in a root; empty where there is none, or it is no regular file.

    Raises:
        InvalidInputError: it is too large.
    """
    try:
        fd = open_in_root(root, name, os.O_PATH)
    except OSError:
        return ""
    return _text(fd) or ""


def _text(place: int) -> str | None:
    """Return the text of a regular file, None for all else: opening a device of an image would act on the host's."""
    try:
        found = os.fstat(place)
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size > _LARGEST:
            raise InvalidInputError("the container's passwd or group file is too large")
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, found.st_size).decode(errors="replace")
        finally:
            os.close(fd)
    finally:
        os.close(place)

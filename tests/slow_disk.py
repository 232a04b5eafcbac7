"""A file system in user space whose server falls silent: what reads it sleeps and no signal wakes it (fuse(4))."""

import os
import struct
import subprocess
import threading
from pathlib import Path

from barque.kernel import mount as km

_IN, _OUT = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
_LOOKUP, _FORGET, _GETATTR, _OPEN, _RELEASE, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = (
    1, 2, 3, 14, 18, 26, 27, 28, 29, 36, 42)  # fmt: skip
_ATTR = struct.Struct("=6Q10I")
_FOLDER, _FILE = 0o040755, 0o100644


class SilentDisk:
    """A mount with one empty file, `file`, of which nothing is answered once it is silent.

    Attributes:
        silent: set to leave all further questions unanswered.
        asked: is set when the first of these has come.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.silent = threading.Event()
        self.asked = threading.Event()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        km.mount("silent", str(place), "fuse", 0, f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other")
        threading.Thread(target=self._serve, daemon=True).start()

    def end(self) -> None:
        """Let everybody go who waits: their reads fail."""
        subprocess.run(["umount", "-f", str(self.place)], check=False, capture_output=True)
        subprocess.run(["umount", "-l", str(self.place)], check=False, capture_output=True)

    def _serve(self) -> None:
        while True:
            try:
                data = os.read(self._fd, 1 << 20)
            except OSError:
                return
            _, code, unique, node, *_ = _IN.unpack_from(data)
            if code in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            if self.silent.is_set() and code != _INIT:
                self.asked.set()
                continue
            try:
                self._answer(unique, *self._reply(code, node, data[_IN.size :]))
            except OSError:
                return

    def _answer(self, unique: int, error: int, body: bytes) -> None:
        os.write(self._fd, _OUT.pack(_OUT.size + len(body), -error, unique) + body)

    def _reply(self, code: int, node: int, body: bytes) -> tuple[int, bytes]:
        if code == _INIT:
            return 0, struct.pack("=IIIIHHIIHH32x", 7, 31, 0, 0, 16, 12, 4096, 1, 1, 0)[:64]
        if code == _GETATTR:
            # Nothing is remembered: every look is a question.
            return 0, struct.pack("=QII", 0, 0, 0) + self._attributes(node)
        if code == _LOOKUP:
            if body.rstrip(b"\0") != b"file":
                return 2, b""
            return 0, struct.pack("=QQQQII", 2, 0, 0, 0, 0, 0) + self._attributes(2)
        if code in (_OPEN, _OPENDIR):
            return 0, struct.pack("=QII", 1, 0, 0)
        if code in (_READDIR, _RELEASE, _RELEASEDIR):
            return 0, b""
        return 38, b""

    def _attributes(self, node: int) -> bytes:
        mode, links = (_FOLDER, 2) if node == 1 else (_FILE, 1)
        return _ATTR.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)

"""The keeper's records on a full file system."""

import errno
import json
import os

import pytest

from barque.keeper.records import write_record


def test_a_record_that_does_not_fit_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "container.json"
    write_record(str(path), {"id": "old"})
    room, write = [10], os.write

    def nearly_full(fd, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= (done := write(fd, memoryview(data)[: room[0]]))
        return done

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(OSError, match="No space left"):
        write_record(str(path), {"id": "new", "more": "than there is room for"})
    assert json.loads(path.read_text()) == {"id": "old"}

"""New names in a folder, as they come: Linux's inotify."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

IN_CREATE = 0x100
IN_MOVED_TO = 0x80
IN_Q_OVERFLOW = 0x4000
EVENT = struct.Struct("iIII")

LIBC = ctypes.CDLL(None, use_errno=True)


class Arrivals:
    """Waits for entries that appear directly in some folders.

    Parameters
    ----------
    folders
        Folders to watch; what is below their own folders is not seen.
    """

    def __init__(self, *folders: Path) -> None:
        self._descriptor = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._folders: dict[int, Path] = {}
        for folder in folders:
            watch = LIBC.inotify_add_watch(
                self._descriptor, os.fsencode(folder), IN_CREATE | IN_MOVED_TO
            )
            if watch < 0:
                number = ctypes.get_errno()
                self.close()
                raise OSError(number, "inotify_add_watch", str(folder))
            self._folders[watch] = folder

    def wait(self, timeout: float) -> set[Path]:
        """Return what has appeared; after `timeout` seconds or `wake`, nothing."""
        select.select([self._descriptor, self._wake], [], [], timeout)
        found: set[Path] = set()
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return found
        at = 0
        while at < len(data):
            watch, mask, _, length = EVENT.unpack_from(data, at)
            at += EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            if not mask & IN_Q_OVERFLOW:
                found.add(self._folders[watch] / os.fsdecode(name))
        return found

    def wake(self) -> None:
        """End a `wait` of another thread, and all later ones at once."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
        os.close(self._wake)

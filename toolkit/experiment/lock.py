"""One writer at a time in a folder, by a lock that a dead process cannot hold.

The operating system's own lock (flock) ends with the process, however it ends. On NFS it reaches other
machines where the server has a lock manager; a mount with `nolock` or `local_lock` sees one machine only.
Where a file system has no such lock at all, the record of the owner decides: it holds as long as the
process it names lives, which can be looked up on the same machine only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from toolkit.errors import ResultsError
from toolkit.files import parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while inside; it is removed afterwards.

    Raises ResultsError naming the holder if another process, or another part of this one, holds it, and
    OSError if the file cannot be made.
    """
    file = _locked(path)
    try:
        yield
    finally:
        # While still locked: whoever opened this file meanwhile sees that it is not the folder's any more.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            path.unlink()
        os.close(file)


def wait_for_lock(file: int) -> None:
    """Wait for an open file's lock, which ends when it is closed; where there are no locks, go on without."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise


def _locked(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with ExitStack() as unless_held:
            unless_held.callback(os.close, file)
            _take(path, file)
            if _is_still_there(path, file):
                _write_owner(file)
                unless_held.pop_all()
                return file


def _take(path: Path, file: int) -> None:
    """Lock the open file; raises ResultsError if it is held."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "no flock on this system")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(path, _owner_in(file)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        owner = _owner_in(file)
        if owner is not None and _may_live(owner):
            raise _held(path, owner) from None


def _held(path: Path, owner: Mapping[str, object] | None) -> ResultsError:
    who = "another process"
    if owner is not None:
        who = f"process {owner['pid']} on {owner['host']} since {owner['since_utc']}"
    elsewhere = owner is not None and owner["host"] != socket.gethostname()
    gone = f"; if that process is gone, delete {path}" if elsewhere else ""
    return ResultsError(
        f"{path.parent.parent} is being written by {who}; wait for it to end, or choose another folder{gone}"
    )


def _write_owner(file: int) -> None:
    owner = {
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "since_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, json.dumps(owner).encode())
    os.fsync(file)


def _owner_in(file: int) -> dict[str, object] | None:
    """Who wrote the record; None for none, or for one that is only half there."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        owner = parse_json(os.read(file, 4_096))
    except ValueError:
        return None
    fields = {"pid", "started", "host", "boot", "since_utc"}
    return owner if isinstance(owner, dict) and fields <= owner.keys() else None


def _may_live(owner: Mapping[str, object]) -> bool:
    """Whether the owner is alive, or on a machine where that cannot be seen from here."""
    if owner["host"] != socket.gethostname():
        return True
    # A process number is used again after a restart, and within one: its start time tells.
    return owner["boot"] == _boot_id() and owner["started"] == _started(int(owner["pid"]))


def _started(pid: int) -> float | None:
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return str(round(psutil.boot_time()))


def _is_still_there(path: Path, file: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file)
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)

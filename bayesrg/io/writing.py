# SPDX-License-Identifier: Apache-2.0
"""Folders locked for one writer, and files that are written completely or not at all."""

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import tempfile
import time

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

_TRIES = 100
_ROOM = "make room there, or raise the limit"
_RIGHTS = "give a path where you may write"
_REMEDIES = {  # of errors of the system
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    errno.ENOENT: "the folder was removed",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: "a folder has this name: remove it, or give another path",
}


@contextlib.contextmanager
def hold(folder):
    """Make ``folder``, check that it can be written to, and lock it inside a ``with`` block.

    The lock is a lock of the operating system on the folder itself, which ends when the process
    ends, even after a crash. The file ``lock`` in the folder says who holds it. Windows and some
    network drives do not have such locks; there the file alone decides, and that of a process that
    has ended on this computer is taken over. Folders that were made here and are still empty at the
    end are removed.

    The block is given a function to call before each write. It raises OSError if the locked folder
    was removed, or another one took its place.

    Raises
    ------
    FileExistsError
        If ``folder`` or a part of its path is a file, if another writer has locked it, or if the
        file ``lock`` is not that of a run.
    OSError
        If the folder cannot be made or written to.
    """
    missing = [part for part in (folder, *folder.parents) if not os.path.exists(part)]
    descriptor, holder = _lock(folder), folder / "lock"

    def check():
        with contextlib.suppress(OSError):
            if descriptor is None or os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                return
        raise FileNotFoundError(
            errno.ENOENT, "the folder was removed or replaced during the run", str(folder)
        )

    try:
        try:  # write a file: permissions do not show that a drive is read-only
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _explained(error, f"cannot write to the folder {str(folder)!r}") from error
        if os.path.lexists(holder) and _holder(holder) is None:
            raise FileExistsError(
                f"{str(holder)!r} is damaged, or is not the lock of a run; remove it if no other "
                "program writes to this folder, or give another path"
            )
        if descriptor is None:
            if found := _alive(holder):
                raise FileExistsError(_taken(folder, found, ended=False))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(holder)
        me = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}
        try:
            if descriptor is None:  # of two writers that start at once, one makes the file
                os.close(os.open(holder, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            write(holder, json.dumps(me).encode())
        except FileExistsError as error:
            raise FileExistsError(_taken(folder, _holder(holder), ended=False)) from error
        except OSError as error:
            raise _explained(error, f"cannot write to the folder {str(folder)!r}") from error
        try:
            yield check
        finally:
            with contextlib.suppress(OSError):
                check()  # else the file is that of another run
                os.unlink(holder)
    finally:
        try:
            for made in missing:  # the deepest first; a folder that is not empty stays
                with contextlib.suppress(OSError):
                    made.rmdir()
        finally:
            if descriptor is not None:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process may keep a copy open
                os.close(descriptor)


def _holder(file):
    """Return what a lock file says, a dict with host, pid and since; None if it says nothing."""
    try:
        found = json.loads(file.read_bytes()[:1000])
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and {"host", "pid", "since"} <= set(found) else None


def _alive(file):
    """Return what a lock file says, or None if its process has ended on this computer."""
    found = _holder(file)
    if found is not None and found["host"] == socket.gethostname():
        try:
            os.kill(int(found["pid"]), 0)
        except PermissionError:  # it runs, under another user
            pass
        except (OSError, ValueError, TypeError, OverflowError):
            return None
    return found


def _taken(folder, found, ended=True):
    """Return the message that another writer holds the lock of a folder.

    ``ended`` says whether the lock ends with its process.
    """
    who = "another run"
    if found is not None:
        who += f" (process {found['pid']} on {found['host']}, since {found['since']})"
    wait = "wait until it has ended"
    if not ended:
        wait = f"if that process has ended, remove the file {str(folder / 'lock')!r}"
    return f"{who} writes to {str(folder)!r} now; give path another folder, or {wait}"


def _explained(error, what):
    """Return an error of the class of ``error`` whose message says ``what`` failed."""
    return type(error)(f"{what}: {error.strerror or error}; give another path")


def _lock(folder):
    """Make and lock a folder; return a descriptor that keeps the lock, or None without locks."""
    for _ in range(_TRIES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise FileExistsError(
                f"{str(folder)!r} is a file, or lies in one; give path a folder"
            ) from error
        except OSError as error:
            raise _explained(error, f"cannot make the folder {str(folder)!r}") from error
        if fcntl is None:
            return None
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise _explained(error, f"cannot open the folder {str(folder)!r}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise FileExistsError(_taken(folder, _holder(folder / "lock"))) from error
            return None  # this file system has no locks

        # Another writer may have removed the folder before it was locked here: then start again.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)
    return None  # this file system does not know its folders again


def write(path, content):
    """Write the bytes ``content`` to ``path``, so that a file of that name is always complete.

    The bytes go to a temporary file first, which is flushed to the disk and then renamed. Its name
    is random and the file must be new, so that no symbolic link and no other writer can redirect
    it.

    Raises
    ------
    OSError
        If there is too little space, or writing fails. The message has the path and a remedy. No
        temporary file is left behind.
    """
    with _advised(path):
        require(path.parent, len(content))
        _write(path, content)


@contextlib.contextmanager
def _advised(path):
    """Add the path and a remedy to the message of an OSError in a ``with`` block."""
    try:
        yield
    except OSError as error:
        text = f"{error.strerror or error}; {_REMEDIES.get(error.errno, 'check the disk')}"
        raise OSError(error.errno, text, str(path)) from error


def _write(path, content):
    with _new(path, os.O_WRONLY) as descriptor:
        _write_all(descriptor, content)
        _sync(descriptor)


@contextlib.contextmanager
def _new(path, access):
    """Open a new file in a ``with`` block; it gets the name ``path`` if the block succeeds.

    The block is given a descriptor, and flushes the file to the disk. If it fails, the file is
    removed.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    flags = access | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)  # O_EXCL follows no link
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _flush(path.parent)


def append(path, content):
    """Add the bytes ``content`` to the end of ``path``, which is made if it does not exist."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def remove(path):
    """Remove a file, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def require(folder, size):
    """Raise OSError if the disk of ``folder`` has less than ``size`` bytes of free space."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(errno.ENOSPC, f"no space: {size} bytes to write and {free} free", str(folder))


def _write_all(descriptor, content):
    # released at once: a traceback would keep it, and a buffer in use cannot be closed
    with memoryview(content) as given, given.cast("B") as view:
        done = 0
        while done < len(view):
            done += os.write(descriptor, view[done:])


def _flush(folder):
    """Flush the entries of a folder to the disk, so that a rename survives a loss of power."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor):
    """Flush a file or a folder to the disk, on file systems that can do so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise


def stream(path, fill, before=lambda digest: None):
    """Write a file piece by piece, complete or not at all, as `write` does; return its SHA-256.

    Parameters
    ----------
    path : path
    fill : function that writes the content to a binary file, which it is given
    before : function that is called with the SHA-256, as text, before the file gets its name

    Raises
    ------
    OSError
        If writing fails. No temporary file is left behind.
    """
    with _advised(path):
        return _stream(path, fill, before)


def _stream(path, fill, before):
    with (
        _new(path, os.O_RDWR) as descriptor,
        open(descriptor, "r+b", buffering=0, closefd=False) as raw,
    ):
        file = _Patient(raw)
        try:
            fill(file)
        except Exception as error:  # what a library says after a failed write is beside it
            raise (file.error or error) from error
        if file.error is not None:
            raise file.error
        _sync(descriptor)
        raw.seek(0)
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
        before(digest)
    return digest


class _Patient(io.RawIOBase):
    """A binary file whose writes never fail, for HDF5, which crashes if it meets a full disk.

    The first error is kept in ``error``. From then on short pieces are kept in memory, because HDF5
    reads its own tables again, and long ones are dropped.
    """

    def __init__(self, raw):
        self.error, self._raw, self._place, self._late = None, raw, 0, {}

    def seek(self, offset, whence=0):
        end = os.fstat(self._raw.fileno()).st_size if whence == 2 else 0
        end = max([end, *(start + len(v) for start, v in self._late.items())] if end else [end])
        self._place = offset + (end if whence == 2 else self._place if whence == 1 else 0)
        return self._place

    def tell(self):
        return self._place

    def readable(self):
        return True

    def writable(self):
        return True

    def seekable(self):
        return True

    def readinto(self, buffer):
        with memoryview(buffer).cast("B") as view:
            self._raw.seek(self._place)
            count = self._raw.readinto(view)
            if self.error is not None:
                count = len(view)
                for start, late in self._late.items():
                    low, high = max(start, self._place), min(start + len(late), self._place + count)
                    if low < high:
                        piece = late[low - start : high - start]
                        view[low - self._place : high - self._place] = piece
        self._place += count
        return count

    def write(self, content):
        with memoryview(content).cast("B") as view:
            count = len(view)
            if self.error is None:
                try:
                    self._raw.seek(self._place)
                    _write_all(self._raw.fileno(), view)
                except OSError as error:
                    self.error = error
            if self.error is not None and count < 1 << 16:
                self._late[self._place] = bytes(view)
        self._place += count
        return count

    def truncate(self, size=None):
        size = self._place if size is None else size
        if self.error is None:
            try:
                self._raw.truncate(size)
            except OSError as error:
                self.error = error
        return size

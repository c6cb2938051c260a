# SPDX-License-Identifier: Apache-2.0
"""Folders locked for one writer, and files that are written completely or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
import tempfile

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


@contextlib.contextmanager
def hold(folder):
    """Make ``folder``, check that it can be written to, and lock it inside a ``with`` block.

    The lock is a lock of the operating system on the folder itself: it leaves no file behind and
    ends when the process ends, even after a crash. Windows and some network drives do not have
    such locks; nothing is locked there. Folders that were made here and are still empty at the end
    are removed.

    Raises
    ------
    FileExistsError
        If ``folder`` or a part of its path is a file, or another writer has locked it.
    OSError
        If the folder cannot be made or written to.
    """
    missing = [part for part in (folder, *folder.parents) if not os.path.exists(part)]
    descriptor = _lock(folder)
    try:
        try:  # write a file: permissions do not show that a drive is read-only
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _explained(error, f"cannot write to the folder {str(folder)!r}") from error
        yield
    finally:
        for made in missing:  # the deepest first; a folder that is not empty stays
            with contextlib.suppress(OSError):
                made.rmdir()
        if descriptor is not None:
            os.close(descriptor)


def _explained(error, what):
    """Return an error of the class of ``error`` whose message says ``what`` failed."""
    return type(error)(f"{what}: {error.strerror or error}; give another path")


def _lock(folder):
    """Make and lock a folder; return a descriptor that keeps the lock, or None without locks."""
    while True:
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
                raise FileExistsError(
                    f"another run writes to {str(folder)!r} now; give path another folder"
                ) from error
            return None  # this file system has no locks

        # Another writer may have removed the folder before it was locked here: then start again.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def write(path, content):
    """Write the bytes ``content`` to ``path``, so that a file of that name is always complete.

    The bytes go to a temporary file first, which is then renamed. Its name is random and the file
    must be new, so that no symbolic link and no other writer can redirect it.

    Raises
    ------
    OSError
        If there is too little space, or writing fails. No temporary file is left behind.
    """
    free = shutil.disk_usage(path.parent).free
    if len(content) > free:
        raise OSError(
            errno.ENOSPC, f"no space: {len(content)} bytes to write and {free} free", str(path)
        )
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)  # O_EXCL follows no link
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

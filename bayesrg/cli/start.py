# SPDX-License-Identifier: Apache-2.0
"""What the command line sets before JAX is loaded: LAPACK's threads, and a folder of programs.

Only variables of the environment are set, and none that the user has set. The library sets nothing.
"""

import os
import sys
import tempfile
from pathlib import Path

MOST_BYTES = 2**30  # of all programs that are kept
THREADS = "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"  # OpenBLAS reads the first, else the second


def one_thread():
    """Give LAPACK one thread: XLA has threads of its own, and both would wait for each other."""
    if not {"jax", "numpy", "scipy"} & set(sys.modules) and not any(map(os.environ.get, THREADS)):
        os.environ["OPENBLAS_NUM_THREADS"] = "1"


def keep_programs():
    """Let JAX keep compiled programs in the user's cache folder, if a file can be written there."""
    if "jax" in sys.modules or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = user_cache() / "bayesrg" / "programs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # its files will be executed
        make_room(folder, MOST_BYTES)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except (OSError, RuntimeError):  # no home, no space, no permission: compile each time
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # small programs too: a first draw needs a hundred of them
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def user_cache():
    """Return the folder in which programs of this user keep what they can make again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the standard says to ignore other paths
        return Path(given)
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def make_room(folder, most):
    """Delete the files of a folder that were used longest ago, until ``most`` bytes are left.

    JAX could do this at each program that it writes, but needs one more package for that, and reads
    the whole folder each time.
    """
    files = []
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            found = entry.stat(follow_symlinks=False)
            files.append((max(found.st_atime, found.st_mtime), found.st_size, entry.path))
    excess = sum(size for _, size, _ in files) - most
    for _, size, path in sorted(files):
        if excess <= 0:
            return
        Path(path).unlink(missing_ok=True)  # another process may have deleted it
        excess -= size

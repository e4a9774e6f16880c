"""
How the C library gives memory to Python, and takes it back.

glibc asks the kernel for every large piece anew, and gives memory back as soon as little of it is
free: a service that reads messages in pieces of the same size over and over spends a quarter of its
time on pages that the kernel clears for it.  And it gives each thread a stock of its own, of which
Python, where one thread runs at a time, has nothing but the memory that lies there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

#: Parameters of mallopt(3), from malloc.h, and what each is to be: pieces up to a megabyte are kept
#: for the next one, and four megabytes at the most that nobody uses; all from one stock.
_PARAMETERS: Final = {
    -3: 1 << 20,  # M_MMAP_THRESHOLD
    -1: 4 << 20,  # M_TRIM_THRESHOLD
    -8: 1,  # M_ARENA_MAX
}


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """
    Have this process keep the memory that it needs again and again.  To be called before it has
    threads.

    Returns False, and leaves all as it is, if the operator has said in the *environment* how it is to
    be (mallopt(3)), or if this is not glibc.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in environment):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    heeded = [library.mallopt(number, value) == 1 for number, value in _PARAMETERS.items()]
    return all(heeded)

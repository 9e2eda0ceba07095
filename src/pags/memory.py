"""Freed memory that stays with the process, so that each step of large work finds its pages ready."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h> of glibc


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks instead of giving them back to the system; elsewhere, do nothing.

    An activation of a ResNet-18 is tens of megabytes. By default glibc maps such a block afresh in every
    step, and the system fills it with zeros, page by page. This holds for the whole process and all its
    threads; the peak of memory stays what it was, what is held after the peak does not shrink.

    Returns:
        Whether the system's allocator took the request.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return mallopt(M_MMAP_MAX, 0) == 1 and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) == 1

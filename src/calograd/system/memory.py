"""Memory that numpy and torch have freed, kept for what they ask for next.

The allocator of glibc hands large blocks back to the system as soon as they are free, and the system clears every page
of the next one, to be written to again. Showers of points need millions of them: with 64 showers at once that was half
of the time (`docs/log.md`).
"""

from __future__ import annotations

import ctypes

MMAP_THRESHOLD = (-3, 32 << 20)
"""Parameter of mallopt(3) and its largest value, bytes: blocks below it come from the heap."""
TRIM_THRESHOLD = (-1, 512 << 20)
"""Likewise: free bytes at the heap's end that are kept."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 512 MB of freed memory. The commands do it, programs may.

    Returns:
        Whether it could be done: the C library is glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return all(mallopt(*parameter) == 1 for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD))

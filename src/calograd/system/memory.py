"""Keep memory that numpy and torch have freed, for their next allocations.

The allocator of glibc returns large blocks to the system as soon as they are free, and the system clears every page of
the next block. Showers as points allocate millions of pages: with 64 showers at once that took half of the time
(`docs/log.md`).
"""

from __future__ import annotations

import ctypes

MMAP_THRESHOLD = (-3, 32 << 20)
"""Parameter of mallopt(3) and its largest value, bytes: blocks below it come from the heap."""
TRIM_THRESHOLD = (-1, 512 << 20)
"""Parameter of mallopt(3) and its value, bytes: free memory at the end of the heap up to this is kept."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 512 MB of freed memory; the commands call this.

    Returns:
        Whether it was done: it needs glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return all(mallopt(*parameter) == 1 for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD))

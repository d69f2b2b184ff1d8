"""Memory that was freed, and that libc keeps: asking for it to be given back to the system."""

from __future__ import annotations


def trim() -> bool:
    """Have libc give back what it holds free, in some milliseconds; False where it does not know how to."""
    try:
        import ctypes

        malloc_trim = ctypes.CDLL(None).malloc_trim  # glibc's
    except (ImportError, OSError, AttributeError, TypeError):
        return False
    malloc_trim.argtypes = [ctypes.c_size_t]
    malloc_trim(0)
    return True

"""Which exceptions mean that memory ran out. Knows names and messages only, so that it needs no torch."""

from __future__ import annotations

_PHRASES = (
    "out of memory",  # CUDA and MPS
    "DefaultCPUAllocator",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a primitive",  # oneDNN, when the memory it works in is refused
    "could not create a memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had too little memory: each of torch's allocators says it in its own way.

    Where it ran out while a CUDA graph was recorded, ending the recording may raise an error of its own over it.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, RuntimeError) and "captur" in str(error) and error.__context__ is not None:
        return is_out_of_memory(error.__context__)
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _PHRASES)

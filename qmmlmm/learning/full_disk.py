"""The error of a learning loop whose disk is full."""

from __future__ import annotations

from qmmlmm.errors import LoopStoreError


def full_disk(path: object, error: BaseException) -> LoopStoreError:
    """Return the error for a full disk, with advice.

    Parameters
    ----------
    path : object
        File or directory on the disk.
    error : BaseException
    """
    return LoopStoreError(
        f"the disk of {path} is full ({error}); nothing that was written is lost: make room and start the loop "
        "again, and it continues"
    )

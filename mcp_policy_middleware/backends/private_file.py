"""Making a file that only its owner may read and write."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["make_private"]


def make_private(path: str) -> None:
    """Make an empty file of mode 0600 where there is none; one that is there stays as it is.

    The file itself is not opened: closing it again would drop the locks that SQLite, in another thread, may hold on
    it by then.
    """
    file = Path(path)
    if file.exists():
        return
    descriptor, spare = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    os.close(descriptor)
    try:
        file.hardlink_to(spare)
    except OSError:  # somebody was quicker, or the file system has no hard links
        with suppress(FileExistsError):
            file.touch(0o600, exist_ok=False)
    finally:
        Path(spare).unlink()

"""One run folder, one training process."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

from triptych.errors import ConfigError

HELD = (errno.EACCES, errno.EAGAIN)
WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # some network file systems


class FolderLock:
    """Holds the run folder until `close` or the end of the process, however it ends.

    A record lock: it is not handed on to the workers of a `DataLoader`, which may outlive their parent.

    Raises:
        ConfigError: another process holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / ".lock").open("ab")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return
            self._file.close()
            if error.errno not in HELD:
                raise
            raise ConfigError(
                "another process is training in this folder",
                where=str(folder),
                remedy="wait until it has ended, or choose another folder",
            ) from error

    def close(self) -> None:
        """Let go of the folder."""
        self._file.close()

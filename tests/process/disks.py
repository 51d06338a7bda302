"""A disk of the test's own that can be filled and freed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import typing
import warnings

import harness

# Room for a new store and some hundred records.
DISK_BYTES = 4 << 20


class Mounted:
    """A small file system in memory: full is what any full disk is (ENOSPC)."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "seawall-test", str(folder)], check=True, capture_output=True)
        self.ballast = folder / "ballast"

    @property
    def data(self) -> pathlib.Path:
        """Where a gateway keeps its own."""
        return self.folder / "data"

    def popen(self) -> dict[str, typing.Any]:
        """What a process on it is started with."""
        return {}

    def fill(self, _: harness.Process | None) -> None:
        """Leaves not a byte."""
        with self.ballast.open("ab", buffering=0) as file:
            for size in (64 << 10, 4 << 10, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        assert os.statvfs(self.folder).f_bavail == 0

    def free(self, _: harness.Process | None) -> None:
        """Takes the ballast away."""
        self.ballast.unlink()

    def close(self) -> None:
        """Lets go of it, also when something is left open by a failed test."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


class Limited:
    """Where nothing may be mounted: files that may not grow (EFBIG), per process."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.data = folder / "data"
        folder.mkdir()

    def popen(self) -> dict[str, typing.Any]:
        """The limit's signal is ignored, so that a write fails instead."""
        return {"preexec_fn": lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN)}

    def fill(self, process: harness.Process | None) -> None:
        """No file may be longer than one page from now on."""
        assert process is not None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    def free(self, process: harness.Process | None) -> None:
        """Any length again."""
        assert process is not None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        """Nothing to let go of."""


def small(folder: pathlib.Path) -> Mounted | Limited:
    """The best that this machine allows; says so when it is the lesser one."""
    try:
        return Mounted(folder / "small")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error)
        warnings.warn(f"no file system could be mounted ({said!r}): a limit on file sizes stands in for a full disk", stacklevel=2)
        return Limited(folder / "limited")

"""Files and folders that a kill or a full disk leaves whole: as they were before, or as they are to be.

Knows paths, disks and the processes of a run; knows no models and no stages. What is being written, or being removed,
lies in a folder `unfinished` beside its final place, and whatever lies there may go at any time.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import distributed

UNFINISHED = "unfinished"
# safetensors tells the system's reason as text, a data loader's worker passes on the text alone.
_REASONS = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_TORCH_WRITERS = ("inline_container", "iostream error")  # where torch.save fails; it does not pass on the reason


class CannotWriteError(ValueError):
    """A file or folder could not be written, because the disk is full or the file would be too large."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name a path whose writing fails within the block.

    Raises:
        CannotWriteError: With the path, the reason and the free space. Other errors pass.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise CannotWriteError(
            f"{path} could not be written: {reason}, {megabytes(free_space(path))} free. Make room and start the same "
            "command again"
        ) from error


def _reason(error: Exception) -> str | None:
    """Why a file could not be written, None when the error tells of something else."""
    if isinstance(error, RuntimeError):
        return "torch could not write a file" if any(place in str(error) for place in _TORCH_WRITERS) else None
    return next((reason for reason in _REASONS if reason in str(error)), None)


def free_space(path: Path) -> int:
    """Bytes that may be written where a path is, or is to be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def megabytes(count: int) -> str:
    """A number of bytes for a reader."""
    return f"{count / 1e6:,.1f} MB"


def write_text(path: Path, text: str) -> None:
    """Write a text file, which a kill leaves as it was before or as it is to be.

    Raises:
        CannotWriteError: When the disk is full.
    """
    unfinished = path.with_name(f"{path.name}.{UNFINISHED}")
    with writing(path):
        unfinished.write_text(text, encoding="utf-8")
        _flush(unfinished)
        unfinished.replace(path)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into; under its own name it appears whole, or not at all.

    Every process of a run enters, on one file system: the first one prepares the folder and renames it when all have
    written. What stood there before is replaced at the end. Of a failure nothing remains, of a kill an `unfinished`
    folder.

    Raises:
        CannotWriteError: When the disk is full.
    """
    unfinished = folder.parent / UNFINISHED / folder.name
    forget_unfinished(folder.parent)
    try:
        with writing(folder):
            if _is_first_process():
                unfinished.mkdir(parents=True)
            _wait_for_all_processes()
            yield unfinished
            _wait_for_all_processes()
            if _is_first_process():
                _flush(*unfinished.rglob("*"), unfinished)
                if folder.exists():
                    discard(folder)
                unfinished.rename(folder)
                _flush(folder.parent)
    finally:
        forget_unfinished(folder.parent)
    _wait_for_all_processes()


def discard(folder: Path) -> None:
    """Remove a folder; a kill leaves nothing half removed under its name."""
    unfinished = folder.parent / UNFINISHED
    unfinished.mkdir(exist_ok=True)
    discarded = folder.rename(unfinished / f"{folder.name}.discarded")
    shutil.rmtree(discarded)


def forget_unfinished(folder: Path) -> None:
    """Remove what was not written to its end in a folder; the first process does."""
    if _is_first_process() and (folder / UNFINISHED).exists():
        shutil.rmtree(folder / UNFINISHED)


def _flush(*paths: Path) -> None:
    """Have files and folders on the disk itself: a name must not outlast a power cut that its contents do not."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_first_process() -> bool:
    return not _are_several() or distributed.get_rank() == 0


def _wait_for_all_processes() -> None:
    if _are_several():
        distributed.barrier()


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()

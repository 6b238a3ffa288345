"""The one way to keep a run on disk: a folder claimed for its settings, rows appended, files whole or not at all.

Whatever ends a run, kill -9 and a full disk included: a file or folder that bears its name is whole, the last line of
a JSONL file is complete or cut off by the next writer, and the same command goes on. What is being written lies beside
its final place under a name of its own, so two writers never meet in one file, even where they share a process id.
Knows paths, JSON and disks; knows nothing of what a run does.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout

from fusionvl.provenance import commit_of, setting_differences, versions_of

Row = TypeVar("Row")

RECORD = "run.json"
UNFINISHED = "unfinished"  # ends the name of what is being written

# Libraries tell the system's reason as text: safetensors in its own error, a data loader's worker in a RuntimeError.
_REASONS = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_TORCH_WRITERS = ("inline_container", "iostream error")  # where torch.save fails; it does not pass on the reason


class CannotWriteError(ValueError):
    """A file or folder could not be written: the disk is full, the file too large, or the place not to be written."""


# --- Whole or not at all ---


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name a path whose writing fails within the block.

    Raises:
        CannotWriteError: With the path, the reason and the free space. Errors of reading, and all others, pass.
    """
    try:
        yield
    except (FileNotFoundError, CannotWriteError):
        raise
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise CannotWriteError(f"{path} cannot be written: {error.strerror}. Choose another place") from error
    except Exception as error:  # safetensors' own kind is neither OSError nor RuntimeError
        reason = _reason(error)
        if reason is None:
            raise
        raise CannotWriteError(
            f"{path} could not be written: {reason}, {megabytes(free_space(path))} free. Make room and start the same "
            "command again"
        ) from error


def _reason(error: Exception) -> str | None:
    """Why a file could not be written, None when the error tells of something else."""
    if isinstance(error, RuntimeError) and any(place in str(error) for place in _TORCH_WRITERS):
        return "torch could not write a file"
    return next((reason for reason in _REASONS if reason in str(error)), None)


def free_space(path: Path) -> int:
    """Bytes that may be written where a path is, or is to be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def megabytes(count: int) -> str:
    """A number of bytes for a reader."""
    return f"{count / 1e6:,.1f} MB"


def write_whole(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Write a file, which a kill leaves as it was before or as it is to be. Its folder is made where it is missing.

    Args:
        path: The file.
        content: All of it, or its pieces in order, which need not fit into memory together.

    Raises:
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _write_aside(path, content)
        try:
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _write_aside(path: Path, content: str | bytes | Iterable[bytes]) -> Path:
    """Write what is to become `path` under a name that no other writer has."""
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    pieces = (data,) if isinstance(data, bytes) else data
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=f".{UNFINISHED}", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that others of the machine could not read
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


@contextmanager
def written_whole(folder: Path, *, is_first: bool = True, meet: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a folder to write into; under its own name it appears whole, or not at all.

    What stood there before is replaced at the end. Of a failure nothing remains, of a kill a folder `NAME.unfinished`.

    Args:
        folder: To be written.
        is_first: Whether this process prepares and renames; of several that write together, one does.
        meet: Waits for all of them.

    Raises:
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    unfinished = _aside(folder)
    try:
        with writing(folder):
            if is_first:
                _remove(unfinished)
                unfinished.mkdir(parents=True)
            meet()
            yield unfinished
            meet()
            if is_first:
                _flush(*unfinished.rglob("*"), unfinished)
                if folder.exists():
                    discard(folder)
                unfinished.rename(folder)
                _flush(folder.parent)
    finally:
        if is_first:
            _remove(unfinished)
    meet()


def discard(folder: Path) -> None:
    """Remove a folder; a kill leaves nothing half removed under its name."""
    discarded = _aside(folder.with_name(f"{folder.name}.discarded"))
    _remove(discarded)
    shutil.rmtree(folder.rename(discarded))


def forget_unfinished(folder: Path, of: str = "") -> None:
    """Remove what a kill left unfinished in a folder, or of one file, to which no other process may be writing."""
    for path in folder.glob(f"{of}*.{UNFINISHED}"):
        _remove(path)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{UNFINISHED}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(*paths: Path) -> None:
    """Have files and folders on the disk itself: a name must not outlast a power cut that its contents do not."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- A folder for its settings ---


def check_place(output: Path) -> None:
    """Refuse as the folder of a run what is a file, or lies below one.

    Raises:
        CannotWriteError: With the file.
    """
    found = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not found.is_dir():
        raise CannotWriteError(f"{output} cannot be the folder of a run: {found} is a file. Choose another --output")


def claim(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    told: Mapping[str, Any] | None = None,
    packages: Sequence[str] = (),
    is_begun: bool,
) -> None:
    """Begin a run in a folder, or go on with the one that is there. Several processes may do so at once.

    `run.json` holds the settings, what else is told, when it was begun, versions and commit. A run that ended before
    it had begun its work leaves the folder to the corrected command.

    Args:
        folder: Of the run; made where it is missing.
        settings: All that its results depend on; JSON.
        told: What a reader wants to know besides; JSON.
        packages: Whose versions are written down.
        is_begun: Whether the folder holds results that other settings would spoil.

    Raises:
        ValueError: When the folder holds a run of other settings, each of which is named, or results and no record.
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    path = folder / RECORD
    record = {
        **(told or {}),
        "settings": settings,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions_of(packages),
        "commit": commit_of(Path(__file__)),
    }
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    if not path.exists():
        if is_begun:
            raise ValueError(f"{folder} holds results and no {RECORD}: choose another --output")
        _write_first(path, content)
    changed = setting_differences(read_record(folder)["settings"], json.loads(json.dumps(settings)))
    if changed and not is_begun:
        write_whole(path, content)
    elif changed:
        difference = "; ".join(f"{name}: {before!r} there, {now!r} here" for name, (before, now) in changed.items())
        raise ValueError(f"{folder} holds a run of other settings ({difference}): choose another --output")


def _write_first(path: Path, content: str) -> None:
    """Write a file unless another process was quicker."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _write_aside(path, content)
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return
        finally:
            unfinished.unlink()


def read_record(folder: Path) -> dict[str, Any]:
    """What a folder says about its run: `settings`, `begun`, `versions`, `commit`, and what else was told.

    Raises:
        ValueError: When it holds no record, or none that can be read.
    """
    path = folder / RECORD
    if not path.is_file():
        raise ValueError(f"{folder} is no folder of a run: it has no {RECORD}")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise ValueError(f"{path} holds no settings")
    return record


def fingerprint(*contents: Any) -> str:
    """A short name for contents: bytes as they are, files as a `Path` by what is in them, anything else as JSON.

    Raises:
        OSError: When a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        if isinstance(content, Path):
            with content.open("rb") as file:
                part = hashlib.file_digest(file, hashlib.blake2b).digest()
        elif isinstance(content, bytes):
            part = hashlib.blake2b(content).digest()
        else:
            text = json.dumps(content, sort_keys=True, ensure_ascii=False)
            part = hashlib.blake2b(text.encode(errors="surrogatepass")).digest()
        digest.update(part)
    return digest.hexdigest()


# --- Rows as they are done ---


class RowFile:
    """A JSONL file, open for its only writer; a context manager. A line that a kill cut short is cut off.

    Args:
        path: The file; made where it is missing, with its folder.
        patience: Seconds to wait for another writer: some file systems give back the locks of a dead machine late.

    Raises:
        ValueError: When another process writes it.
        CannotWriteError: When the place cannot be written.
    """

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path.with_name(f"{path.name}.lock"))
            try:
                self._lock.acquire(timeout=patience)
            except Timeout as error:
                raise ValueError(f"Another process writes {path}: wait for it, or choose another --output") from error
            try:
                self._file = path.open("ab", buffering=0)
                self._cut(_end_of_last_line(path))
            except BaseException:
                self._lock.release()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Keep rows: they are in the system's hands when this returns, and outlast the process.

        Raises:
            CannotWriteError: When the disk is full.
        """
        end = self._file.tell()
        left = memoryview(b"".join(map(_to_line, rows)))
        with writing(self.path):
            try:
                while left:
                    left = left[self._file.write(left) :]
            except BaseException:
                self._cut(end)
                raise

    def _cut(self, end: int) -> None:
        """Cut the file off; the place to write at, which the next append asks for, does not follow by itself."""
        self._file.truncate(end)
        self._file.seek(end)

    def close(self) -> None:
        """Leave the file to another writer."""
        self._file.close()
        self._lock.release()


def read_rows(path: Path, make: Callable[[dict[str, Any]], Row]) -> Iterator[Row]:
    """Yield the rows of a JSONL file, none where there is no file; a last line without its end is left out.

    Args:
        path: The file. Another process may be writing it.
        make: Makes a row of its values; raises `TypeError`, `KeyError` or `ValueError` for values that are none.

    Raises:
        ValueError: For a line that is no row; names file and line.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError("not a JSON object")
                row = make(values)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{path}, line {number}: {error}. Remove that line; what it stood for is then done again"
                ) from error
            yield row


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file at once; a kill leaves it as it was or as it is to be.

    Raises:
        CannotWriteError: When the disk is full.
    """
    write_whole(path, b"".join(map(_to_line, rows)))


def _to_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


def _end_of_last_line(path: Path) -> int:
    """Bytes up to the end of the last line that has one."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 2**16)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0

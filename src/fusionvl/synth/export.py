"""Writes chosen rows as a data set that the trainer reads: LLaVA JSON by kind with images, parquet, or tar shards.

Every form comes with `mixture.yaml`, which a training recipe names as its data, and with `provenance.json`. A data
set appears whole or not at all. Holds the rows of one shard of the run at a time. Does not choose rows.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from fusionvl.data.llava import to_record
from fusionvl.data.sample import Sample, Turn
from fusionvl.run_folder import RECORD, read_record, written_whole
from fusionvl.synth.choices import as_asked
from fusionvl.synth.plan import what_is_missing
from fusionvl.synth.rows import Row
from fusionvl.synth.selection import SELECTION_FILE, chosen_rows, read_selection
from fusionvl.synth.shard_files import arrow, count_statuses, parquet, run_shards

ExportFormat = Literal["llava", "parquet", "tar"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

_SHARD_ROWS = 4096
_GROUP_ROWS = 64  # the trainer reads rows at random and decodes a row group for each


def export_selection(
    folder: Path, output: Path, form: ExportFormat, *, everything: bool = False, unfinished: bool = False
) -> Path:
    """Writes the rows that the run's recorded selection keeps; see `export_rows`.

    Args:
        folder: The run's.
        output: Folder to make; must not exist.
        form: How to write the rows.
        everything: Whether to write every sound row, and need no selection: scenes are exact as they are.
        unfinished: Whether the run may be unfinished; the provenance then says so.

    Returns:
        The mixture file of the data set.

    Raises:
        ValueError: If the run is unfinished and may not be, no selection is recorded, scores or rows have changed
            since, or the rows cannot be written.
    """
    missing = what_is_missing(folder)
    if missing and not unfinished:
        raise ValueError(
            f"{folder} holds {missing}; finish it with: fusionvl synth run, or export what there is with --unfinished"
        )
    record = None if everything else read_selection(folder)
    if record is None and not everything:
        raise ValueError(f"{folder}: holds no {SELECTION_FILE}; run: fusionvl synth select {folder}")
    kept = sum(count_statuses(path)["ok"] for path in run_shards(folder)) if record is None else record["kept"]
    if not kept:
        raise ValueError(f"no rows to export from {folder}; look at the run: fusionvl synth inspect {folder}")
    provenance = {"rows": kept, "format": form, "selection.json": record}
    if (folder / RECORD).is_file():
        provenance[RECORD] = read_record(folder)
    if missing:
        provenance["unfinished"] = missing
    return export_rows(chosen_rows(folder, selected=not everything), folder, output, form, provenance)


def export_rows(
    rows: Iterable[Row],
    folder: Path,
    output: Path,
    form: ExportFormat,
    provenance: dict[str, Any],
    shard: int = _SHARD_ROWS,
) -> Path:
    """Writes rows as a data set.

    Args:
        rows: What to write, in order.
        folder: What their image paths are relative to.
        output: Folder to make; must not exist.
        form: How to write them.
        provenance: Where the rows come from, kept beside them.
        shard: Most rows in a parquet file or tar shard.

    Returns:
        The mixture file of the data set.

    Raises:
        ValueError: If the output exists, or a row cannot be written; names the row. The output then does not exist.
        CannotWriteError: If the disk is full or the place cannot be written.
    """
    if output.exists():
        raise ValueError(f"{output} exists already; name another folder, or remove it")
    with written_whole(output) as unfinished:
        patterns = _WRITERS[form](rows, folder, unfinished, shard)
        text = json.dumps(provenance, indent=2, ensure_ascii=False)
        (unfinished / "provenance.json").write_text(text + "\n", encoding="utf-8")
        entries = [f"  - path: {pattern}\n    name: {_name(output, pattern)}\n" for pattern in patterns]
        (unfinished / "mixture.yaml").write_text(f"datasets:\n{''.join(entries)}", encoding="utf-8")
    return output / "mixture.yaml"


def _name(output: Path, pattern: str) -> str:
    """What a part of the data set is called: by its kind, where it is of one."""
    return output.name if "*" in pattern else f"{output.name}-{Path(pattern).stem}"


def sample_of(row: Row, folder: Path) -> Sample:
    """A row as the trainer sees it: questions with their options, answers, image.

    Raises:
        ValueError: If a question or answer is empty, or the image is missing; names the row.
    """
    image = None if row.image is None else folder / row.image
    if image is not None and not image.is_file():
        raise ValueError(f"row {row.id}: there is no image {image}; run: fusionvl synth filter, and select")
    try:
        turns = tuple(Turn(as_asked(turn), turn.answer) for turn in row.turns)
        return Sample(id=row.id, turns=turns, image=image, source=row.kind)
    except ValueError as error:
        raise ValueError(f"row {row.id}: {error}") from error


def _write_llava(rows: Iterable[Row], folder: Path, output: Path, shard: int) -> list[str]:
    """A list of records for each kind, and all images beside them."""
    with ExitStack() as opened:
        files: dict[str, TextIO] = {}
        for row in rows:
            record = to_record(_with_copied_image(row, folder, output), image_root=output)
            begun = row.kind in files
            if not begun:
                files[row.kind] = opened.enter_context((output / f"{row.kind}.json").open("w", encoding="utf-8"))
            files[row.kind].write((",\n" if begun else "[\n") + json.dumps(record, ensure_ascii=False))
        for file in files.values():
            file.write("\n]\n")
    return [f"{kind}.json" for kind in files]


def _with_copied_image(row: Row, folder: Path, output: Path) -> Sample:
    sample = sample_of(row, folder)
    if row.image is None:
        return sample
    target = output / row.image
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / row.image, target)
    return replace(sample, image=target)


def _write_parquet(rows: Iterable[Row], folder: Path, output: Path, shard: int) -> list[str]:
    text = arrow.string()
    talk = arrow.list_(arrow.struct([("from", text), ("value", text)]))
    image = arrow.struct([("bytes", arrow.binary()), ("path", text)])
    names = ("kind", "caption", "description", "split")
    schema = arrow.schema([("id", text), ("image", image), ("conversations", talk), *((name, text) for name in names)])
    for number, part in enumerate(_batched(rows, shard)):
        with parquet.ParquetWriter(output / f"part-{number:05d}.parquet", schema) as file:
            for group in _batched(part, _GROUP_ROWS):
                records = [_with_bytes(row, folder) | {name: getattr(row, name) for name in names} for row in group]
                file.write_table(arrow.Table.from_pylist(records, schema=schema))
    return ["part-*.parquet"]


def _with_bytes(row: Row, folder: Path) -> dict[str, Any]:
    image = None if row.image is None else {"bytes": (folder / row.image).read_bytes(), "path": row.image}
    return {**to_record(sample_of(row, folder), image_root=folder), "image": image}


def _write_tar(rows: Iterable[Row], folder: Path, output: Path, shard: int) -> list[str]:
    for number, part in enumerate(_batched(rows, shard)):
        with tarfile.open(output / f"part-{number:05d}.tar", "w") as archive:
            for row in part:
                record = to_record(sample_of(row, folder), image_root=folder) | {"kind": row.kind}
                if row.image is not None:
                    image = folder / row.image
                    record["image"] = f"{row.id}{image.suffix}"
                    _add(archive, record["image"], image.read_bytes())
                _add(archive, f"{row.id}.json", json.dumps(record, ensure_ascii=False).encode())
    return ["part-*.tar"]


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _batched(rows: Iterable[Row], count: int) -> Iterator[list[Row]]:
    left = iter(rows)
    while part := list(islice(left, count)):
        yield part


_WRITERS: dict[ExportFormat, Callable[[Iterable[Row], Path, Path, int], list[str]]] = {
    "llava": _write_llava,
    "parquet": _write_parquet,
    "tar": _write_tar,
}

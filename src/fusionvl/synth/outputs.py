"""Writes chosen rows as a data set that the trainer reads: LLaVA JSON with images, parquet, or tar shards.

Every form comes with `mixture.yaml`, which a training recipe names as its data, and with `provenance.json`. A data
set appears whole or not at all. Does not choose rows.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from fusionvl.data.extras import import_extra
from fusionvl.data.llava import to_record, write_llava
from fusionvl.data.sample import Sample, Turn
from fusionvl.synth.completeness import what_is_missing
from fusionvl.synth.filtering import kinds_of, sound_rows
from fusionvl.synth.filters.choices import as_asked
from fusionvl.synth.rows import Row
from fusionvl.synth.scores import read_scores
from fusionvl.synth.selection import SELECTION_FILE, recorded_selection

Format = Literal["llava", "parquet", "tar"]
RUN_FILE = "run.json"
FORMATS: tuple[Format, ...] = get_args(Format)

_SHARD_ROWS = 4096
_GROUP_ROWS = 64  # the trainer reads rows at random and decodes a row group for each


def export_rows(
    rows: Sequence[Row], folder: Path, output: Path, form: Format, provenance: dict[str, Any], shard: int = _SHARD_ROWS
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
        ValueError: If there are no rows, the output exists, or a row cannot be written; names the row.
        OSError: If a file cannot be written; the output then does not exist.
    """
    if not rows:
        raise ValueError(f"no rows to export from {folder}; look at the selection: fusionvl synth inspect {folder}")
    if output.exists():
        raise ValueError(f"{output} exists already; name another folder, or remove it")
    unfinished = output.with_name(f"{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    pattern = _WRITERS[form](rows, folder, unfinished, shard)
    text = json.dumps({"rows": len(rows), "format": form, **provenance}, indent=2, ensure_ascii=False)
    (unfinished / "provenance.json").write_text(text + "\n", encoding="utf-8")
    entry = f"  - path: {pattern}\n    name: {output.name}\n"
    (unfinished / "mixture.yaml").write_text(f"datasets:\n{entry}", encoding="utf-8")
    unfinished.rename(output)
    return output / "mixture.yaml"


def export_selection(folder: Path, output: Path, form: Format, *, unfinished: bool = False) -> Path:
    """Writes the rows that the run's recorded selection keeps; see `export_rows`.

    Args:
        folder: The run's.
        output: Folder to make; must not exist.
        form: How to write the rows.
        unfinished: Whether the run may be unfinished; the provenance then says so.

    Raises:
        ValueError: If the run is unfinished and may not be, no selection is recorded, scores have changed since, or
            the rows cannot be written.
    """
    missing = what_is_missing(folder)
    if missing and not unfinished:
        raise ValueError(
            f"{folder} holds {missing}; finish it with: fusionvl synth run, or export what there is with --unfinished"
        )
    rows = sound_rows(folder)
    table = read_scores(folder)
    kept = set(recorded_selection(folder, table, kinds_of(table, rows, folder)).kept)
    provenance = {
        name: json.loads((folder / name).read_text(encoding="utf-8"))
        for name in (RUN_FILE, SELECTION_FILE)
        if (folder / name).is_file()
    }
    if missing:
        provenance["unfinished"] = missing
    return export_rows([row for row in rows if row.id in kept], folder, output, form, provenance)


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
    except ValueError as error:
        raise ValueError(f"row {row.id}: {error}") from error
    return Sample(id=row.id, turns=turns, image=image, source=row.kind)


def _write_llava(rows: Sequence[Row], folder: Path, output: Path, shard: int) -> str:
    def copied() -> Iterator[Sample]:
        for row in rows:
            sample = sample_of(row, folder)
            if row.image is not None:
                target = output / row.image
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / row.image, target)
                sample = Sample(id=sample.id, turns=sample.turns, image=target, source=sample.source)
            yield sample

    write_llava(output / "data.json", copied())
    return "data.json"


def _write_parquet(rows: Sequence[Row], folder: Path, output: Path, shard: int) -> str:
    arrow = import_extra("pyarrow", extra="synth", needed_for="writing parquet")
    parquet = import_extra("pyarrow.parquet", extra="synth", needed_for="writing parquet")
    text = arrow.string()
    talk = arrow.list_(arrow.struct([("from", text), ("value", text)]))
    image = arrow.struct([("bytes", arrow.binary()), ("path", text)])
    names = ("kind", "caption", "description", "split")
    schema = arrow.schema([("id", text), ("image", image), ("conversations", talk), *((name, text) for name in names)])
    for number, start in enumerate(range(0, len(rows), shard)):
        with parquet.ParquetWriter(output / f"part-{number:05d}.parquet", schema) as file:
            part = rows[start : start + shard]
            for group in range(0, len(part), _GROUP_ROWS):
                records = [_with_bytes(row, folder, names) for row in part[group : group + _GROUP_ROWS]]
                file.write_table(arrow.Table.from_pylist(records, schema=schema))
    return "part-*.parquet"


def _with_bytes(row: Row, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    record = to_record(sample_of(row, folder), image_root=folder)
    image = None if row.image is None else {"bytes": (folder / row.image).read_bytes(), "path": row.image}
    return {**record, "image": image, **{name: getattr(row, name) for name in names}}


def _write_tar(rows: Sequence[Row], folder: Path, output: Path, shard: int) -> str:
    for number, start in enumerate(range(0, len(rows), shard)):
        with tarfile.open(output / f"part-{number:05d}.tar", "w") as archive:
            for row in rows[start : start + shard]:
                record = to_record(sample_of(row, folder), image_root=folder) | {"kind": row.kind}
                if row.image is not None:
                    image = folder / row.image
                    _add(archive, f"{row.id}{image.suffix}", image.read_bytes())
                    record["image"] = f"{row.id}{image.suffix}"
                _add(archive, f"{row.id}.json", json.dumps(record, ensure_ascii=False).encode())
    return "part-*.tar"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


_WRITERS: dict[Format, Callable[[Sequence[Row], Path, Path, int], str]] = {
    "llava": _write_llava,
    "parquet": _write_parquet,
    "tar": _write_tar,
}

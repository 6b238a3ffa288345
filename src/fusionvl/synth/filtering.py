"""Scores the rows of a run: `fusionvl synth filter DIR`. Each filter goes through the finished shards as a work.

Rows stay as they are, and what is scored is not scored again. Knows no filter in particular.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from filelock import FileLock

from fusionvl.provenance import setting_differences
from fusionvl.run_folder import claim, discard, read_record, write_rows
from fusionvl.synth.filters import make_filter
from fusionvl.synth.filters.filter import Filter, FilterModels
from fusionvl.synth.progress import FuseSettings, Tally
from fusionvl.synth.rows import Row
from fusionvl.synth.scores import scores_folder
from fusionvl.synth.shard_files import (
    SHARD_FOLDER,
    Record,
    arrow,
    count_statuses,
    is_settled,
    read_records,
    read_rows,
    read_table,
    run_shards,
    shard_number,
    shard_path,
)
from fusionvl.synth.shards import Keep, Needs, ShardJob, Sharing, Spend, complete
from fusionvl.synth.text_client import RequestError

PARALLEL = 64
"""Rows that are scored at once, if nothing else is said."""

_TYPES = {float: arrow.float64(), str: arrow.string(), bytes: arrow.binary()}
_FUSE = FuseSettings(window=20, max_errors=0.9)  # a model that is out of order, not one that fails now and then


def filter_run(
    folder: Path,
    names: Sequence[str],
    models: FilterModels | None = None,
    sharing: Sharing | None = None,
    *,
    parallel: int = PARALLEL,
    rescore: bool = False,
) -> dict[str, Tally]:
    """Scores the finished rows of a run, or those of them that a filter has not scored.

    Args:
        folder: The run's.
        names: Of the filters.
        models: For the filters that need one.
        sharing: Here, by one of several processes, or on a cluster.
        parallel: How many rows are scored at once; of filters that ask, each is one request.
        rescore: Whether scores are given up that were made under other settings.

    Returns:
        For each filter what there is in this share of the run.

    Raises:
        ValueError: If the run has no sound rows, a filter is unknown, lacks its model, has scored rows under other
            settings, or its model is out of order.
        ModuleNotFoundError: If something is not installed that a filter needs; says how to install it.
    """
    models, sharing = models or FilterModels(), sharing or Sharing()
    folder = folder.resolve()
    rows = {shard_number(path): count_statuses(path)["ok"] for path in run_shards(folder)}
    if not any(rows.values()):
        raise ValueError(f"{folder}: none of its finished rows has the status 'ok'")
    filters = [make_filter(name, models) for name in dict.fromkeys(names)]
    try:  # all stay open till the end: a local model that two of them ask is loaded once
        for each in filters:
            _claim(folder, each, rescore)
        return {each.name: _score(folder, each, models, rows, sharing, parallel) for each in filters}
    finally:
        for each in filters:
            each.close()


def _score(
    folder: Path, each: Filter, models: FilterModels, rows: dict[int, int], sharing: Sharing, parallel: int
) -> Tally:
    first, step = sharing.share
    own = [shard for shard in rows if shard % step == first]
    for shard in own:
        FilterWork(folder, each).begin_again(shard)
    job = ShardJob(
        make=partial(make_filter_work, folder, each.name, models),
        folder=scores_folder(folder, each.name),
        rows=rows,
        concurrency=parallel,
        fuse=_FUSE,
        needs=Needs(gpus=len(set(each.devices) - {"cpu"}), environment=("OPENAI_API_KEY",)),
    )
    is_idle = all(is_settled(job.folder, shard, sharing.retry_errors) for shard in own)
    tally = complete(job, sharing)
    if tally.rows["error"] and not tally.rows["ok"] and not is_idle:
        raise ValueError(
            f"{each.name} could score none of {tally.rows['error']:,} rows; why, is told in {job.folder}. When that "
            "has passed, run again with --retry-errors"
        )
    return tally


class FilterWork:
    """Scores the sound rows of each shard of a run.

    Args:
        run: The run folder.
        each: The filter.
    """

    def __init__(self, run: Path, each: Filter) -> None:
        self.folder = scores_folder(run, each.name)
        columns = dict.fromkeys(("id", "status", "reason"), str) | dict(each.columns)
        self.schema = arrow.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
        self.close = each.close
        self._run = run
        self._filter = each

    def rows(self, shard: int) -> Iterator[Row]:
        """The rows of a shard that came out well."""
        rows = read_rows(shard_path(self._run / SHARD_FOLDER, shard))
        return (row for row in rows if row.status == "ok")

    async def do(self, row: Row, shard: int, known: Record | None, keep: Keep) -> Record:
        """Score a row."""
        try:
            scores = await self._filter.score(row, self._run)
        except RequestError as error:
            return {"id": row.id, "status": "error", "reason": str(error), **dict.fromkeys(self._filter.columns)}
        return {"id": row.id, "status": "ok", "reason": "", **scores}

    def begin_again(self, shard: int) -> None:
        """Begin a scored shard again if its rows have changed in the run, say by --retry-errors; the others stay."""
        final = shard_path(self.folder, shard)
        if not final.exists():
            return
        run = read_table(shard_path(self._run / SHARD_FOLDER, shard), ["id", "status"]).to_pylist()
        ids = [row["id"] for row in run if row["status"] == "ok"]
        if read_table(final, ["id"])["id"].to_pylist() != ids:
            kept = [record for record in read_records(final, self.schema) if record["id"] in set(ids)]
            write_rows(shard_path(self.folder, shard, ".jsonl"), kept)
            final.unlink()


def make_filter_work(folder: Path, name: str, models: FilterModels, spend: Spend) -> FilterWork:
    """The work of a filter, ready to be done in this process; see `make_filter`."""
    return FilterWork(folder, make_filter(name, models))


def _claim(folder: Path, each: Filter, rescore: bool) -> None:
    """Begin the scores of a filter, or go on with those that are there."""
    scores = scores_folder(folder, each.name)
    scores.parent.mkdir(exist_ok=True)
    with FileLock(scores.with_name(f"{each.name}.lock")):
        is_begun = any(path.suffix in (".parquet", ".jsonl") for path in scores.glob("part-*"))
        if is_begun:
            changed = setting_differences(read_record(scores)["settings"], each.settings)
            if changed and not rescore:
                told = "; ".join(f"{name}: {before!r} there, {now!r} here" for name, (before, now) in changed.items())
                raise ValueError(
                    f"{scores} holds scores of other settings ({told}). Give them up with --rescore, or go on with "
                    "the settings of before"
                )
            if changed:
                discard(scores)
        claim(scores, each.settings, is_begun=is_begun and not changed)

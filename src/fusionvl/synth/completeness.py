"""How much of a run is there: finished shards against the plan in `run.json`. Reads no rows."""

from pathlib import Path

from fusionvl.synth.manifest import MANIFEST, read_manifest
from fusionvl.synth.plan import Plan
from fusionvl.synth.row_files import shard_path
from fusionvl.synth.shard import is_settled


def what_is_missing(folder: Path) -> str | None:
    """What there is of a half-finished run: `N of M rows; K shards unfinished`.

    A shard that was opened again, for its errors, is unfinished although its rows of before are there.

    Returns:
        None when the run is whole, or the folder has no `run.json` that could say so.
    """
    if not (folder / MANIFEST).is_file():
        return None
    settings = read_manifest(folder)["settings"]
    plan = Plan(*(settings[name] for name in ("source", "split", "seed", "rows", "shard_size")))
    open_shards = sum(not is_settled(folder, shard, retry_errors=False) for shard in range(plan.shards))
    if not open_shards:
        return None
    there = sum(plan.rows_in(shard) for shard in range(plan.shards) if shard_path(folder, shard).exists())
    return f"{there:,} of {len(plan):,} rows; {open_shards:,} shards unfinished"

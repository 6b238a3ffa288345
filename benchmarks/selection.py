"""How fast, and in how much memory, rows are selected: a made-up run of columns alone, no texts and no images.

    python benchmarks/selection.py 200000

Prints processor time, which others on the machine do not lengthen, and the greatest memory of this process, before and
after.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow

from fusionvl.run_folder import claim
from fusionvl.synth.filters import NEEDS_NO_MODEL, make_filter
from fusionvl.synth.filters.filter import FilterModels
from fusionvl.synth.rows import row_id
from fusionvl.synth.scores import scores_folder
from fusionvl.synth.selection import asked_rules, select_rows, write_selection
from fusionvl.synth.shard_files import SHARD_FOLDER, shard_path, write_table

KINDS = ("SynthColor", "SynthCount", "SynthSpatial", "MultiChoice", "ConvShort", "Reasoning")
SHARD_ROWS = 2000
COLOURS = ("red", "green", "blue", "yes", "no", "black", "white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, start in enumerate(range(0, rows, SHARD_ROWS)):
            write_shard(folder, number, min(SHARD_ROWS, rows - start))
        print(f"made: {memory():,.0f} MB")
        began = time.process_time()
        rules = asked_rules([], ["image_contrast=0.8"], [])
        record = write_selection(folder, *select_rows(folder, rules), rules)
        seconds = time.process_time() - began
        print(
            f"{record['kept']:,} of {record['rows']:,} selected: {seconds:.1f} s of processor time, {memory():,.0f} MB"
        )


def memory() -> float:
    """The most megabytes that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def write_shard(folder: Path, number: int, count: int) -> None:
    """The ids of a shard and its scores: one row in twenty is a near-duplicate of the one before."""
    draws = np.random.default_rng(number)
    ids = [row_id("made-up", "", "", f"{number}.{place}") for place in range(count)]
    kinds = draws.choice(KINDS, count).tolist()
    write_table(
        shard_path(folder / SHARD_FOLDER, number), pyarrow.table({"id": ids, "kind": kinds, "status": ["ok"] * count})
    )
    sketches = draws.integers(0, 2**8, (count, 128), dtype=np.uint8)
    hashes = draws.integers(0, 2**63, count, dtype=np.uint64)
    copies = np.arange(19, count, 20)
    sketches[copies, 8:] = sketches[copies - 1, 8:]
    hashes[copies] = hashes[copies - 1] ^ np.uint64(6)
    texts = {
        "text_sketch": [sketch.tobytes() for sketch in sketches],
        "image_hash": [f"{bits:016x}" for bits in hashes.tolist()],
        "answers": ["\n".join(dict.fromkeys(own)) for own in draws.choice(COLOURS, (count, 3)).tolist()],
        "letters": [
            f"{letter} of 4" if kind == "MultiChoice" else None
            for letter, kind in zip(draws.choice(list("ABCD"), count).tolist(), kinds, strict=True)
        ],
        "templates": [f"what color is thing {place % 50}" for place in range(count)],
    }
    for name in NEEDS_NO_MODEL:
        each = make_filter(name, FilterModels())
        if number == 0:
            claim(scores_folder(folder, name), each.settings, is_begun=False)
        numbers = {column: score(column, draws, count) for column, kind in each.columns.items() if kind is float}
        columns = numbers | {column: texts[column] for column in each.columns if column in texts}
        base = {"id": ids, "status": ["ok"] * count, "reason": [""] * count}
        write_table(shard_path(scores_folder(folder, name), number), pyarrow.table(base | columns))


def score(column: str, draws: np.random.Generator, count: int) -> np.ndarray:
    """Numbers that the default limits let pass, but for one row in a hundred."""
    good = 0.0 if column.startswith("rule_") else 100.0
    return np.where(draws.random(count) < 0.01, 1.0, good + (draws.random(count) if good else 0.0))


if __name__ == "__main__":
    main()

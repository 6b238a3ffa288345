"""Opening and reading a large LLaVA file: what the index costs once, and every process afterwards.

    python benchmarks/data_index.py --rows 1000000

Writes generated rows into a temporary folder, builds the index in one process, opens the mixture in another, and
prints times, memory and rates of both. Nothing is decoded but JSON.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

READS = 20_000
BATCH_SIZE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=("json", "jsonl"), default="json")
    parser.add_argument("--folder", type=Path, help="where to write the rows; by default a temporary folder")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open is not None:
        print(json.dumps(measure(arguments.open)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / f"rows.{arguments.kind}"
        seconds = timed(lambda: generate(path, arguments.rows))
        size = path.stat().st_size
        print(f"{arguments.rows:,} rows, {size / 1e9:.2f} GB of {arguments.kind}, written in {seconds:.1f} s")
        found = in_new_process(path)
        print(f"indexed at {size / 1e6 / found['open_s']:,.0f} MB/s")
        report("first process, builds the index", found)
        report("second process, opens it", in_new_process(path))
        (index,) = path.parent.glob(".fusionvl-index/*.rows")
        print(f"index: {index.stat().st_size / 1e6:.0f} MB on disk")


def generate(path: Path, rows: int) -> None:
    """Writes captions and conversations of 1 to 4 turns; four rows of five have an image."""
    (path.parent / "image.jpg").write_bytes(b"not decoded here")
    generator = random.Random(0)
    bodies = [body(generator) for _ in range(2000)]
    array = path.suffix == ".json"
    with path.open("w", encoding="utf-8") as file:
        file.write("[\n" if array else "")
        for row in range(rows):
            image = '"image": "image.jpg", ' if row % 5 else ""
            end = "\n" if row == rows - 1 or not array else ",\n"
            file.write(f'{{"id": "{row}", {image}"conversations": {bodies[generator.randrange(2000)]}}}{end}')
        file.write("]\n" if array else "")


def body(generator: random.Random) -> str:
    words = ["a", 'the "red" one', "picture {of}", "a [small] café", "on\nthe left", "three", "people", "at night"]
    turns = []
    for _ in range(generator.randint(1, 4)):
        turns.append({"from": "human", "value": " ".join(generator.choices(words, k=generator.randint(4, 15)))})
        turns.append({"from": "gpt", "value": " ".join(generator.choices(words, k=generator.randint(1, 60)))})
    return json.dumps(turns)


def in_new_process(path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--open", str(path)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def measure(path: Path) -> dict[str, float]:
    """Runs in a process of its own: opens the file as a mixture and uses it as a training run would."""
    import numpy as np

    from fusionvl.data.batches import OptimizerSteps, TokenEstimate
    from fusionvl.data.mixture import open_mixture

    before = peak_memory()
    found: dict[str, float] = {}
    start = time.perf_counter()
    mixture = open_mixture({"datasets": [{"json_path": str(path)}]}, seed=0)
    found["open_s"] = time.perf_counter() - start
    estimate = TokenEstimate(image_tokens=400, max_length=4096)
    steps = OptimizerSteps(mixture, BATCH_SIZE // 32, 32, (4, 16, 36, 64, 144), estimate)
    batches = steps.starting_at(len(mixture) // 2 // BATCH_SIZE)
    found["first_batch_s"] = timed(lambda: next(batches))
    found["batches_s"] = timed(lambda: [next(batches) for _ in range(1000)]) / 1000
    positions = np.arange(READS)
    places = [mixture.order.at(position) for position in positions.tolist()]
    found["reads_s"] = timed(lambda: [mixture.read(place) for place in places]) / READS
    found["order_s"] = timed(lambda: mixture.order.places(np.arange(10**6, 2 * 10**6))) / 10**6
    found["peak_mb"] = peak_memory()
    found["peak_before_mb"] = before
    return found


def report(name: str, found: dict[str, float]) -> None:
    print(f"{name}:")
    print(f"  open            {found['open_s']:10.2f} s")
    print(f"  first batch     {found['first_batch_s'] * 1e3:10.1f} ms, at half of the data")
    print(f"  further batches {found['batches_s'] * 1e3:10.2f} ms each, of {BATCH_SIZE}, grouped")
    print(f"  order           {1 / found['order_s']:10,.0f} positions/s")
    print(f"  random reads    {1 / found['reads_s']:10,.0f} rows/s")
    print(f"  peak memory     {found['peak_mb']:10.0f} MB, {found['peak_before_mb']:.0f} MB before opening")


def peak_memory() -> float:
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

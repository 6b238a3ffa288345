"""Scenes a second on one core: graph, conversation, picture and PNG file of each kind.

    OMP_NUM_THREADS=1 python benchmarks/scenes.py --size 384

Processor time, so that other processes on the machine hardly matter; the disk is left out.
"""

import argparse
import io
import time

from fusionvl.synth.kinds import KINDS
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes.drawings import Drawings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--count", type=int, default=200, help="samples of each kind")
    parser.add_argument("--drawings", help="what scripts/fetch_drawings.py wrote; for the kinds that need it")
    arguments = parser.parse_args()
    drawings = Drawings(arguments.drawings) if arguments.drawings else None
    print(
        f"{'kind':<16}{'scenes/s':>9}{'graph ms':>10}{'draw ms':>9}{'PNG ms':>8}{'PNG KB':>8}   ({arguments.size} px)"
    )
    for name, kind in KINDS.items():
        if drawings is not None or not kind.needs_drawings:
            report(name, arguments.size, arguments.count, drawings)


def report(kind: str, size: int, count: int, drawings: Drawings | None) -> None:
    scene_sample(kind, 0).draw(size, drawings)  # loads typefaces
    graph = drawing = encoding = 0.0
    written = 0
    for number in range(count):
        start = time.process_time()
        sample = scene_sample(kind, number)
        sampled = time.process_time()
        image = sample.draw(size, drawings)
        drawn = time.process_time()
        file = io.BytesIO()
        image.save(file, "PNG")
        encoded = time.process_time()
        graph, drawing, encoding = graph + sampled - start, drawing + drawn - sampled, encoding + encoded - drawn
        written += file.tell()
    rate = count / (graph + drawing + encoding)
    each = [1e3 * seconds / count for seconds in (graph, drawing, encoding)]
    print(f"{kind:<16}{rate:>9.0f}{each[0]:>10.2f}{each[1]:>9.2f}{each[2]:>8.2f}{written / count / 1e3:>8.1f}")


if __name__ == "__main__":
    main()

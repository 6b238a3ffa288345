"""Writes scenes as a data set: images, one LLaVA file a kind, and a mixture of them all.

    FOLDER/scenes.json                      seed, split and size, which every sample in the folder shares
    FOLDER/images/KIND/0000/0000000.png
    FOLDER/KIND.json                        complete or not there
    FOLDER/mixture.yaml                     what a recipe or `fusionvl data verify` takes

Started again, it keeps the images that are there. Knows neither graphs nor pixels.
"""

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from fusionvl.data import Sample, llava
from fusionvl.synth.scenes import scene_sample
from fusionvl.synth.scenes.combinations import Split
from fusionvl.synth.scenes.kinds import ALL_KINDS, KINDS
from fusionvl.synth.settled_folder import claimed, write_whole

MIXTURE = "mixture.yaml"
_SETTINGS = "scenes.json"
_CHUNK = 100


@dataclass(frozen=True, slots=True)
class SceneSettings:
    """What all samples of a folder share.

    Attributes:
        size: Pixels a side.
        seed: Another seed, other samples.
        split: `train` or `held-out`.
    """

    size: int
    seed: int
    split: Split


def write_scenes(
    folder: Path,
    count: int,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    size: int = 384,
    seed: int = 0,
    split: Split = "train",
    processes: int = 1,
) -> Path:
    """Writes samples, or those of them that are missing.

    Args:
        folder: Where to; made if it is not there.
        count: How many of each kind.
        kinds: Which kinds.
        size: Pixels a side.
        seed: Another seed, other samples.
        split: Which combinations of shapes, colours and words to use, see `combinations`.
        processes: How many draw at the same time; the result is the same.

    Returns:
        The mixture file, which names all kinds in the folder.

    Raises:
        ValueError: If an argument is out of range, the folder holds scenes of other settings, or another process is
            drawing into it.
    """
    if count < 1 or processes < 1:
        raise ValueError(f"count and processes must be at least 1, got {count} and {processes}")
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds must be one or more different names, got {', '.join(kinds) or 'none'}")
    settings = SceneSettings(size, seed, split)
    for kind in kinds:  # what is wrong with an argument is told before anything is written
        scene_sample(kind, 0, seed=seed, split=split).draw(size)
    with (
        claimed(folder, _SETTINGS, asdict(settings), "scenes"),
        _mapping(processes) as map_in_order,
        tqdm(total=count * len(kinds), unit="sample", desc="Drawing") as bar,
    ):
        for kind in kinds:
            _write_kind(folder, kind, count, settings, map_in_order, bar.update)
        return _write_mixture(folder)


_Map = Callable[[Callable[[range], list[Sample]], Sequence[range]], Iterator[list[Sample]]]


@contextmanager
def _mapping(processes: int) -> Iterator[_Map]:
    if processes == 1:
        yield map
        return
    # A fresh process: a forked one would inherit the locks of whatever threads the caller runs.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _write_kind(
    folder: Path, kind: str, count: int, settings: SceneSettings, map_in_order: _Map, done: Callable[[int], object]
) -> None:
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]

    def samples() -> Iterator[Sample]:
        for chunk in map_in_order(functools.partial(_draw_chunk, folder, kind, settings), chunks):
            yield from chunk
            done(len(chunk))

    write_whole(folder / f"{kind}.json", lambda partial: llava.write_llava(partial, samples(), image_root=folder))


def _draw_chunk(folder: Path, kind: str, settings: SceneSettings, numbers: range) -> list[Sample]:
    return [_draw(folder, kind, settings, number) for number in numbers]


def _draw(folder: Path, kind: str, settings: SceneSettings, number: int) -> Sample:
    scene = scene_sample(kind, number, seed=settings.seed, split=settings.split)
    path = folder / "images" / kind / f"{number // 1000:04d}" / f"{number:07d}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda partial: scene.draw(settings.size).save(partial, "PNG"))
    return Sample(id=scene.id, turns=scene.turns, image=path, source=kind)


def _write_mixture(folder: Path) -> Path:
    present = [kind for kind in ALL_KINDS if (folder / f"{kind}.json").exists()]
    content = {"datasets": [{"json_path": f"{kind}.json", "sampling_strategy": "all"} for kind in present]}
    path = folder / MIXTURE
    write_whole(path, lambda partial: partial.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8"))
    return path

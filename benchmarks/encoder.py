"""What a stage-0 encoder has learned: names of drawn things, beside the nearest pictures by pixels, and places.

    python benchmarks/encoder.py runs/encoder/model --drawings data/drawings --trained-on data/drawn/DrawnThing.json \
        data/drawn_test/DrawnThing.json data/drawn_other/DrawnThing.json

NAMES: each picture of a file finds its caption among all of that file's, by the encoder, and by the captions of the
pictures of training that are nearest by pixels. Artists copy each other: the first figure means nothing without the
second.

PLACES: whether features of patches tell which of several things is where. A linear classifier (ridge regression) is
fitted to the mean features of the patches that a thing covers, in scenes of training, and names the things of scenes
with pairs that it has not seen; beside it, the same from the mean of the whole picture, which cannot know which thing
is meant. Features are those that a FUSION reads, of the layer before the last: from the base view and from four tiles.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoTokenizer, SiglipModel

from fusionvl.data.mixture import open_mixture
from fusionvl.data.replacement import FaultPolicy
from fusionvl.processing.image_processing import five_views
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.scenes.drawn_things import characters
from fusionvl.synth.scenes.things import Split
from fusionvl.train.base_weights import quiet
from fusionvl.train.captioned_pictures import CaptionCollator, Captioned, CaptionedPictures, normalized
from fusionvl.train.encoder_pretraining import caption_features, picture_features

BATCH = 256
CONTROL_SIDE = 24  # pixels of a side for the nearest pictures; finer ones are no nearer in what they show
RIDGE = 1.0
READINGS = ("own patches, base view", "own patches, tiles", "whole picture")
SCENES = {"train": 4000, "held-out": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the encoder")
    parser.add_argument("asked", nargs="+", type=Path, help="JSON files of pictures that were not trained on")
    parser.add_argument("--trained-on", type=Path, required=True, help="JSON file of pictures to be near to")
    parser.add_argument("--neighbors", type=int, default=20_000, help="how many of those")
    parser.add_argument("--drawings", type=Path, required=True, help="the drawings")
    parser.add_argument("--artists", nargs="+", default=["noto", "twemoji", "fluent-emoji-flat", "emojione"])
    options = parser.parse_args()
    with quiet():
        model = SiglipModel.from_pretrained(options.model, dtype=torch.float32).eval()
    side, length = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings
    collate = CaptionCollator(AutoTokenizer.from_pretrained(options.model), length)

    print("NAMES: first, and among the first five, in %")
    print(f"{'pictures':<40}{'number':>8}{'captions':>10}{'encoder':>16}{'nearest by pixels':>20}")
    known = read(options.trained_on, options.neighbors, side)
    for path in options.asked:
        asked = read(path, None, side)
        captions = sorted({picture.caption for picture in asked})
        right = torch.tensor([captions.index(picture.caption) for picture in asked])
        named = ranks(by_encoder(model, collate, asked, captions), right)
        near = ranks(by_pixels(known, asked, captions), right)
        print(f"{path!s:<40}{len(asked):>8}{len(captions):>10}{named:>16}{near:>20}", flush=True)

    print("\nPLACES: things of scenes with several, named by a linear reading of features, first, in %")
    drawings = Drawings(options.drawings, options.artists)
    fitted, tested = (scene_features(model, drawings, split, count, side) for split, count in SCENES.items())
    for name in fitted:
        if name != "names":
            share = ridge(fitted[name], fitted["names"], tested[name], tested["names"])
            print(f"{name:<40}{len(tested['names']):>8} things {100 * share:>8.1f}")


def read(path: Path, count: int | None, side: int) -> list[Captioned]:
    mixture = open_mixture({"datasets": [{"json_path": str(path)}]}, seed=0)
    pictures = CaptionedPictures(mixture, side, FaultPolicy(on_corrupt="error"))
    number = len(mixture) if count is None else min(count, len(mixture))
    return [pictures[place] for place in tqdm(range(number), desc=path.name, leave=False)]


def pixels_of(pictures: list[Captioned]) -> torch.Tensor:
    return torch.from_numpy(np.stack([picture.pixels for picture in pictures]))


@torch.inference_mode()
def by_encoder(
    model: SiglipModel, collate: CaptionCollator, asked: list[Captioned], captions: list[str]
) -> torch.Tensor:
    """How well each caption fits each picture, (N, U)."""
    texts = caption_features(model, collate.encode(captions))
    parts = pixels_of(asked).split(BATCH)
    return torch.cat([picture_features(model, normalized(part)) for part in parts]) @ texts.T


def by_pixels(known: list[Captioned], asked: list[Captioned], captions: list[str]) -> torch.Tensor:
    """For each picture and caption, how near the nearest picture of that caption is, (N, U)."""
    ours, theirs = (small(pixels_of(pictures)) for pictures in (asked, known))
    number = {caption: place for place, caption in enumerate(captions)}
    of_caption = torch.tensor([number.get(picture.caption, len(captions)) for picture in known])
    rows = []
    for part in tqdm(ours.split(BATCH), desc="nearest", leave=False):
        near = torch.full((len(part), len(captions) + 1), -torch.inf)
        distances = torch.cdist(part, theirs)
        rows.append(near.scatter_reduce(1, of_caption.expand(len(part), -1), -distances, "amax")[:, :-1])
    return torch.cat(rows)


def small(pixels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(normalized(pixels), CONTROL_SIDE).flatten(1)


def ranks(fits: torch.Tensor, right: torch.Tensor) -> str:
    order = fits.argsort(dim=1, descending=True)[:, :5] == right[:, None]
    return f"{100 * float(order[:, 0].float().mean()):.1f} / {100 * float(order.any(1).float().mean()):.1f}"


@torch.inference_mode()
def scene_features(
    model: SiglipModel, drawings: Drawings, split: Split, count: int, side: int
) -> dict[str, torch.Tensor]:
    """Of each thing in scenes with several: the mean features of its patches, and of the whole picture."""
    grid = side // model.config.vision_config.patch_size
    names = list(characters())
    found: dict[str, list[torch.Tensor]] = {
        "own patches, base view": [],
        "own patches, tiles": [],
        "whole picture": [],
    }
    labels = []
    for number in tqdm(range(count), desc=split, leave=False):
        sample = scene_sample("DrawnNames", number, seed=1, split=split)
        views = torch.from_numpy(five_views(sample.draw(2 * side, drawings), side))
        hidden = model.vision_model(normalized(views), output_hidden_states=True).hidden_states[-2]
        maps = hidden.unflatten(1, (grid, grid))  # (5, grid, grid, width)
        tiles = torch.cat([torch.cat([maps[0], maps[1]], 1), torch.cat([maps[2], maps[3]], 1)])
        for thing in sample.picture[0].things:
            labels.append(names.index(thing.shape))
            box = (thing.box.left, thing.box.top, thing.box.right, thing.box.bottom)
            found[READINGS[0]].append(mean_within(maps[4], box))
            found[READINGS[1]].append(mean_within(tiles, box))
            found[READINGS[2]].append(maps[4].mean((0, 1)))
    return {name: torch.stack(features) for name, features in found.items()} | {"names": torch.tensor(labels)}


def mean_within(features: torch.Tensor, box: tuple[float, float, float, float]) -> torch.Tensor:
    """The mean over patches whose centres lie in a box of shares of the picture; else the one nearest its centre."""
    centres = (torch.arange(len(features)) + 0.5) / len(features)
    columns, rows = ((centres >= low) & (centres <= high) for low, high in ((box[0], box[2]), (box[1], box[3])))
    if not (columns.any() and rows.any()):
        x, y = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        return features[(centres - y).abs().argmin(), (centres - x).abs().argmin()]
    return features[rows][:, columns].mean((0, 1))


def ridge(known: torch.Tensor, names: torch.Tensor, asked: torch.Tensor, right: torch.Tensor) -> float:
    """The share that a linear classifier fitted to known features names rightly."""
    mean, spread = known.mean(0), known.std(0) + 1e-6
    known, asked = ((torch.nn.functional.pad((each - mean) / spread, (0, 1), value=1.0)) for each in (known, asked))
    wanted = torch.nn.functional.one_hot(names).float()
    solved = torch.linalg.solve(known.T @ known + RIDGE * torch.eye(known.shape[1]), known.T @ wanted)
    return float(((asked @ solved).argmax(1) == right).float().mean())


if __name__ == "__main__":
    main()

"""What batching makes of many GPUs: padding in forward passes, and waiting for the slowest of them. All on paper.

    python benchmarks/scaling.py

Generates the lengths of a mixture's rows, lets `fusionvl.data.batches` make optimizer steps of them, and prices every
forward pass of every process. No model is built and nothing is trained. "before" is the rule this package had before:
a number of latent tokens drawn for each forward pass, rows sorted by characters alone, and a row of its own for the
blank image that goes along with text alone.

**Padding** is the share of the decoder's tokens that belong to no row. **Waiting** is the share of all processes' time
in which they wait: those that share weights (FSDP) meet in every layer, so passes that run side by side take as long
as the most expensive one.

The work of a forward pass of B rows of S tokens, Q questions with l latent tokens each, and N images, in
multiply-additions; training multiplies all of it by the same number:

    decoder      B S P + B S^2 D layers            P weights of its layers; the head, which sees answers only, left out
    encoder      5 N (p W + 2 p^2 d layers)        p patches a view, W weights of encoder and mapping MLPs
    interaction  D^2 layers (27 l N + 6 l Q)       windows of 3 x 3 are projected once for each image

The mixture, `KINDS`, lies between LLaVA-1.5's data for fine-tuning (its model card: 158 K generated instructions,
450 K academic VQA, many of them several questions about an image, 40 K conversations without one) and FUSION's stages
with captions and long answers. Lengths are assumed to be log-normal. A token has 4 characters with a spread of 6 %
from row to row and 110 % / sqrt(characters) on top, as Phi-3.5's tokenizer showed on 1,081 paragraphs of English
documentation; code and other languages spread more.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
from geometry import PRESETS, Geometry
from numpy.typing import NDArray

from fusionvl.data.batches import OptimizerSteps, TokenEstimate, share_of
from fusionvl.data.mixture_order import MixtureOrder
from fusionvl.data.source import Shapes

LATENTS = (4, 16, 36, 64, 144)
RANKS = (1, 8, 32, 128, 256)
MAX_LENGTH = 4096
FEWEST_PASSES = 32  # of a step, as in the paper; more processes need more
MULTIPLE = 16  # lengths are padded to
TURN_TOKENS = 12  # what a chat template writes
WINDOW = 9  # positions that a latent token looks at
VIEWS = 5


@dataclass(frozen=True)
class Kind:
    """Rows of one kind: their share, most turns and how fast these get rare, characters of a turn and their spread."""

    name: str
    share: float
    turns: tuple[int, int]
    more_turns: float
    characters: float
    spread: float
    has_image: bool = True


KINDS = (
    Kind("captions", 0.25, (1, 1), 0.0, 320, 0.8),
    Kind("short VQA", 0.30, (1, 1), 0.0, 110, 0.4),
    Kind("several questions", 0.25, (2, 10), 0.7, 90, 0.4),
    Kind("long answers", 0.12, (1, 3), 0.6, 900, 0.6),
    Kind("text alone", 0.08, (1, 10), 0.65, 1000, 0.8, has_image=False),
)


class GeneratedRows:
    """Stands for a mixture whose rows are their lengths; the same numbers for the same seed."""

    def __init__(self, count: int, seed: int, kinds: tuple[Kind, ...]) -> None:
        generator = np.random.default_rng(seed)
        self.kinds = kinds
        chosen = generator.choice(len(kinds), count, p=[kind.share for kind in kinds])
        few, many, more, characters, spread, image = (
            np.array(values)[chosen]
            for values in zip(
                *((*kind.turns, kind.more_turns, kind.characters, kind.spread, kind.has_image) for kind in kinds),
                strict=True,
            )
        )
        turns = np.minimum(few - 1 + generator.geometric(1 - more), many)
        written = (turns * characters * np.exp(spread * generator.standard_normal(count))).astype(np.int64)
        self._shapes = Shapes(np.maximum(written, 8), turns, image.astype(bool))
        length_of_token = 4 * np.exp(
            np.sqrt(0.06**2 + 1.1**2 / self._shapes.characters) * generator.standard_normal(count)
        )
        self._text = (self._shapes.characters / length_of_token + TURN_TOKENS * turns).astype(np.int64)
        self.seed = seed
        self.order = MixtureOrder((10 * count,), seed)  # of a mixture that is larger than what is looked at

    def _rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return positions % len(self._text)

    def shapes(self, positions: NDArray[np.int64]) -> Shapes:
        """What an index knows of rows."""
        rows, shapes = self._rows(positions), self._shapes
        return Shapes(shapes.characters[rows], shapes.turns[rows], shapes.has_image[rows])

    def tokens(self, positions: NDArray[np.int64], num_latents: NDArray[np.int64], image_tokens: int) -> NDArray:
        """What rows really have, each with its own number of latents."""
        shapes = self.shapes(positions)
        image = shapes.has_image * (image_tokens + num_latents * shapes.turns)
        return np.minimum(self._text[self._rows(positions)] + image, MAX_LENGTH)

    def describe(self, image_tokens: int) -> None:
        """Prints what the rows are."""
        print("rows of the mixture:")
        for kind in self.kinds:
            turns = f"{kind.turns[0]} to {kind.turns[1]} turns" if kind.turns[1] > 1 else "1 turn"
            image = "" if kind.has_image else ", no image"
            print(
                f"  {kind.share:4.0%} {kind.name}: {turns}, median of {kind.characters:.0f} characters a turn{image}"
            )
        for num_latents in (LATENTS[0], LATENTS[-1]):
            found = self.tokens(np.arange(len(self._text)), np.array(num_latents), image_tokens)
            quantiles = ", ".join(
                f"{np.quantile(found, share):.0f} ({share:.0%})" for share in (0.05, 0.5, 0.95, 0.99)
            )
            print(f"  tokens with {num_latents} latents a question: mean {found.mean():.0f}; quantiles {quantiles}")


@dataclass(frozen=True)
class Plan:
    """Who runs what: rows of a forward pass, passes of a step, processes, and the latent counts to draw from."""

    rows: int
    passes: int
    ranks: int
    latents: tuple[int, ...]
    image_tokens: int


@dataclass(frozen=True)
class SideBySide:
    """Forward passes that all processes run at once, one each: positions (processes, rows), latents (processes,)."""

    positions: NDArray[np.int64]
    num_latents: NDArray[np.int64]


def after(mixture: GeneratedRows, plan: Plan) -> Iterator[SideBySide]:
    """The rule of the package."""
    estimate = TokenEstimate(plan.image_tokens, MAX_LENGTH)
    for step in OptimizerSteps(mixture, plan.rows, plan.passes, plan.latents, estimate).starting_at(0):
        shares = np.stack([share_of(step, rank, plan.ranks) for rank in range(plan.ranks)], axis=1)
        for positions in shares:
            yield SideBySide(positions, np.full(plan.ranks, step.num_latents))


def before(mixture: GeneratedRows, plan: Plan) -> Iterator[SideBySide]:
    """The rule of before: groups of 32 steps sorted by characters, latents drawn for each pass."""
    generator = np.random.default_rng(mixture.seed)
    group = 32 * plan.passes * plan.rows
    for start in count(0, group):
        shapes = mixture.shapes(np.arange(start, start + group))
        by_length = start + np.lexsort((shapes.characters, shapes.has_image))
        for step in by_length.reshape(32, -1, plan.ranks, plan.rows)[generator.permutation(32)]:
            for positions in step:
                yield SideBySide(positions, generator.choice(plan.latents, plan.ranks))


@dataclass(frozen=True)
class Prices:
    """Sums over many forward passes."""

    useful: float
    computed: float
    mean_work: float
    longest_work: float

    @property
    def padding(self) -> float:
        """Share of the computed tokens."""
        return 1 - self.useful / self.computed

    @property
    def waiting(self) -> float:
        """Share of all processes' time."""
        return 1 - self.mean_work / self.longest_work


def price(mixture: GeneratedRows, geometry: Geometry, passes: list[SideBySide], row_of_blank: int) -> Prices:
    """Prices passes; all arrays are (times, processes), positions and tokens with an axis of rows behind.

    Args:
        row_of_blank: tokens of the row that a blank image has beside text alone; 0 where it has none.
    """
    positions = np.stack([each.positions for each in passes])
    latents = np.stack([each.num_latents for each in passes])
    shapes = mixture.shapes(positions)
    tokens = mixture.tokens(positions, latents[..., None], geometry.patches)
    images = shapes.has_image.sum(axis=-1)
    blank = images == 0
    rows = positions.shape[-1] + (blank & (row_of_blank > 0))
    length = np.maximum(tokens.max(axis=-1), blank * row_of_blank)
    length = -(-length // MULTIPLE) * MULTIPLE
    questions = (shapes.turns * shapes.has_image).sum(axis=-1)
    worked = work(geometry, rows, length, images + blank, questions, latents * ~blank)
    return Prices(
        float(tokens.sum()), float((rows * length).sum()), float(worked.mean(-1).sum()), float(worked.max(-1).sum())
    )


def work(
    geometry: Geometry, rows: NDArray, length: NDArray, images: NDArray, questions: NDArray, latents: NDArray
) -> NDArray[np.float64]:
    """Multiply-additions of forward passes; the formula is at the head of this file."""
    width, layers = geometry.decoder_width, geometry.decoder_layers
    keys = width * geometry.decoder_key_value_heads // geometry.decoder_heads
    weights = layers * (2 * width * width + 2 * width * keys + 3 * width * geometry.decoder_mlp)
    decoder = rows * length * float(weights) + rows * length.astype(float) ** 2 * width * layers
    narrow, deep = geometry.vision_width, geometry.vision_layers - 1
    encoder = deep * (4 * narrow * narrow + 2 * narrow * geometry.vision_mlp) + 3 * narrow * width + width * width
    view = geometry.patches * encoder + 2 * geometry.patches**2 * narrow * deep
    interaction = width * width * geometry.interaction_layers * (3 * WINDOW * images + 6 * questions) * latents
    return np.asarray(decoder + VIEWS * images * float(view) + interaction.astype(float))


def with_text_alone(share: float) -> tuple[Kind, ...]:
    """The mixture with another share of rows without an image."""
    others = 1 - sum(kind.share for kind in KINDS if not kind.has_image)
    return tuple(replace(kind, share=kind.share * (1 - share) / others if kind.has_image else share) for kind in KINDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="8b")
    parser.add_argument("--rows", type=int, default=4, help="of a forward pass")
    parser.add_argument("--text-alone", type=float, default=0.08, help="share of rows without an image")
    parser.add_argument("--steps", type=int, default=1024, help="optimizer steps that are priced")
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS, help="processes, one GPU each")
    arguments = parser.parse_args()
    geometry = PRESETS[arguments.preset]
    mixture = GeneratedRows(1 << 20, 0, with_text_alone(arguments.text_alone))
    mixture.describe(geometry.patches)
    print(f"\nforward passes of {arguments.rows} rows, {FEWEST_PASSES} a step or one for each rank")
    print("                       padding             waiting on ranks")
    print("latents   rule       of the tokens" + "".join(f"{ranks:>9}" for ranks in arguments.ranks))
    for name, latents in [*((str(each), (each,)) for each in LATENTS), ("drawn", LATENTS)]:
        for rule in (before, after):
            row_of_blank = geometry.patches + min(latents) + 2 * TURN_TOKENS if rule is before else 0
            prices = []
            for ranks in arguments.ranks:
                plan = Plan(arguments.rows, max(FEWEST_PASSES, ranks), ranks, latents, geometry.patches)
                passes = list(islice(rule(mixture, plan), arguments.steps * plan.passes // ranks))
                prices.append(price(mixture, geometry, passes, row_of_blank))
            padding = max(each.padding for each in prices)
            waiting = "".join(f"{each.waiting:9.1%}" for each in prices)
            print(f"{name:>7}   {rule.__name__:<10} {padding:12.1%} {waiting}", flush=True)


if __name__ == "__main__":
    main()

"""What stage 0 is: a typed recipe for an encoder that learns from captioned pictures, before there is a FUSION.

Knows no tensors and opens no data.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from fusionvl.data.recipe_file import read_recipe
from fusionvl.train.config import MixtureData, OptimizerName, Precision, check_at_least, check_rate, check_schedule

_KEY = "encoder"  # what no other recipe has


@dataclass
class FreshEncoder:
    """A SigLIP with fresh weights, and a tokenizer trained on the captions.

    Attributes:
        vision: Fields of `SiglipVisionConfig`.
        text: Fields of `SiglipTextConfig`; `max_position_embeddings` bounds a caption, longer ones are cut.
        vocab_size: Of the tokenizer.
        kind: Which starting point.
    """

    vision: dict[str, Any]
    text: dict[str, Any]
    vocab_size: int = 1024
    kind: Literal["scratch"] = "scratch"


@dataclass
class TrainedEncoder:
    """A whole SigLIP to go on from, with its tokenizer.

    Attributes:
        checkpoint: Hub name or folder.
        kind: Which starting point.
    """

    checkpoint: str
    kind: Literal["checkpoint"] = "checkpoint"


@dataclass
class HeldOutPictures:
    """Pictures that are not trained on: each is to find its own caption among all of theirs.

    Attributes:
        name: What the log calls them.
        data: Where they are.
        pictures: How many of them.
    """

    name: str
    data: MixtureData
    pictures: int = 1000

    def __post_init__(self) -> None:
        check_at_least(2, self, "pictures", within=f"held_out {self.name}: ")


@dataclass
class EncoderRecipe:
    """A whole run of stage 0.

    Attributes:
        name: Names the run and its output folder.
        encoder: The starting point.
        data: Pictures; the caption of a sample is its first answer.
        max_steps: Optimizer steps.
        batch_size: Pictures of a step; each is compared with every caption among them.
        learning_rate: Peak; that of the loss's scale and bias as well.
        recolored: Share of the pictures whose colours are changed at random; for captions that name none.
        dropped_patches: Share of each picture's patches that are left out, which takes as much less time (Li et al.
            2023, arXiv 2212.00794); in the last 15 % of the steps none are.
        held_out: What is measured from time to time.
        optimizer: `adamw`, or `muon` for matrices and AdamW for the rest; rates and decay mean the same for both.
        warmup_ratio: Share of the steps in which the learning rate rises.
        min_learning_rate_ratio: Share of the peak that the cosine falls to.
        weight_decay: For matrices; biases, norms and embeddings have none.
        adam_beta2: Decay of AdamW's second moment.
        max_grad_norm: Gradients are clipped to this norm.
        seed: Decides weights, order and colours.
        precision: `auto` takes bfloat16 where the device computes in it.
        save_every: Steps between checkpoints.
        evaluate_every: Steps between measurements on held-out pictures.
        log_every: Steps between log lines.
        report_to: Trackers that get the log besides `metrics.jsonl`.
        data_workers: Processes that prepare batches.
    """

    name: str
    encoder: FreshEncoder | TrainedEncoder
    data: MixtureData
    max_steps: int
    batch_size: int
    learning_rate: float
    recolored: float = 0.0
    dropped_patches: float = 0.0
    held_out: list[HeldOutPictures] = field(default_factory=list)
    optimizer: OptimizerName = "adamw"
    warmup_ratio: float = 0.03
    min_learning_rate_ratio: float = 0.0
    weight_decay: float = 0.0
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0
    seed: int = 0
    precision: Precision = "auto"
    save_every: int = 200
    evaluate_every: int = 200
    log_every: int = 20
    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])
    data_workers: int = 1

    def __post_init__(self) -> None:
        check_at_least(1, self, "max_steps", "save_every", "evaluate_every", "log_every")
        check_at_least(2, self, "batch_size")
        check_at_least(0, self, "learning_rate", "data_workers", "recolored", "dropped_patches")
        check_schedule(self)
        check_rate("learning_rate is", self.learning_rate)
        if self.learning_rate == 0:
            raise ValueError("learning_rate is 0: nothing would be learned")
        if self.recolored > 1:
            raise ValueError(f"recolored is {self.recolored}, a share of the pictures: it must be at most 1")
        if self.dropped_patches >= 1:
            raise ValueError(f"dropped_patches is {self.dropped_patches}, a share of them: it must be below 1")
        if self.save_every % self.log_every:
            raise ValueError(f"save_every ({self.save_every}) must be a multiple of log_every ({self.log_every})")
        names = [each.name for each in self.held_out]
        if len(names) != len(set(names)):
            raise ValueError(f"held_out: every set of pictures needs a name of its own, not {names}")


def is_encoder_recipe(path: str | Path) -> bool:
    """Whether a file describes stage 0; one that cannot be read does not, and is refused as any recipe is."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(values, dict) and _KEY in values


def load_encoder_recipe(path: str | Path, overrides: list[str] | None = None) -> EncoderRecipe:
    """Read a recipe of stage 0.

    Args:
        path: A YAML file.
        overrides: `key.of.field=value`, applied over the file.

    Raises:
        ValueError: When a key is unknown, or a value is of the wrong type or cannot be trained; names file and key.
    """
    return read_recipe(EncoderRecipe, path, overrides)

"""Pictures with captions, for stage 0: positions of a mixture -> batches.

The caption of a sample is its first answer. Knows the data room and pixels; knows no model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from fusionvl.data.mixture import Mixture
from fusionvl.data.replacement import FaultPolicy, SampleReader
from fusionvl.data.sample import Sample
from fusionvl.processing import load_image


class Captioned(NamedTuple):
    """A picture with its caption.

    Attributes:
        pixels: uint8 (3, side, side).
        caption: What it shows.
        row: Its source and id, for an error to name.
    """

    pixels: np.ndarray
    caption: str
    row: str


class CaptionedPictures(Dataset[Captioned]):
    """The pictures of a mixture by position; a corrupt one is replaced as the policy says.

    Args:
        mixture: The data.
        side: Pixels of a side.
        policy: What to do with samples that cannot be used.
        quarantine: The file that names them.
    """

    def __init__(self, mixture: Mixture, side: int, policy: FaultPolicy, quarantine: Path | None = None) -> None:
        self._side = side
        self._reader = SampleReader(mixture, self._decode, policy=policy, quarantine=quarantine)

    def __getitem__(self, position: int) -> Captioned:
        return self._reader.read_or_replace(position)

    def _decode(self, sample: Sample) -> Captioned:
        if sample.image is None:
            raise ValueError(f"sample {sample.id!r} has no picture, and stage 0 learns from pictures with captions")
        image = load_image(sample.image).resize((self._side, self._side), Image.Resampling.BICUBIC)
        return Captioned(np.asarray(image).transpose(2, 0, 1), caption_of(sample), f"{sample.source} {sample.id!r}")


def caption_of(sample: Sample) -> str:
    """The caption of a sample: its first answer."""
    return sample.turns[0].answer


@dataclass(frozen=True)
class Steps(Sampler[list[int]]):
    """The positions of optimizer steps, from one on: what a step sees follows from its number alone.

    Attributes:
        steps: Of the whole run.
        batch_size: Pictures of a step.
        first_step: Steps done before.
    """

    steps: int
    batch_size: int
    first_step: int = 0

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.steps):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))

    def __len__(self) -> int:
        return max(0, self.steps - self.first_step)


@dataclass(frozen=True)
class CaptionCollator:
    """Pictures with captions -> a batch; captions that are equal are one.

    Attributes:
        tokenizer: Of the captions.
        length: Tokens of each, filled up: SigLIP reads a caption off its last place, whatever stands there.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int

    def __call__(self, pictures: Sequence[Captioned]) -> dict[str, Any]:
        """`pixel_values` uint8 (B, 3, side, side), `input_ids` (U, length) of U captions, `caption` (B,), `rows`."""
        captions = list(dict.fromkeys(picture.caption for picture in pictures))
        return {
            "pixel_values": torch.from_numpy(np.stack([picture.pixels for picture in pictures])),
            "input_ids": self.encode(captions),
            "caption": torch.tensor([captions.index(picture.caption) for picture in pictures]),
            "rows": [picture.row for picture in pictures],
        }

    def encode(self, captions: Sequence[str]) -> torch.Tensor:
        """Captions as token ids, (U, length)."""
        encoded = self.tokenizer(
            list(captions), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        ids: torch.Tensor = encoded["input_ids"]
        return ids


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes as a SigLIP takes them, from -1 to 1."""
    return pixels.float() / 127.5 - 1


def recolored(pixels: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Pictures, a share of them in other colours: channels mixed, contrast and brightness changed.

    Args:
        pixels: (B, 3, side, side), from -1 to 1.
        share: Of the pictures.
        generator: Decides which, and how.
    """
    count = len(pixels)
    mixing = torch.rand((count, 3, 3), generator=generator) - 0.5
    mixing = torch.eye(3) + mixing - mixing.mean(-1, keepdim=True)  # rows sum to 1: grey stays grey
    contrast = 0.7 + 0.5 * torch.rand((count, 1, 1, 1), generator=generator)
    brightness = 0.3 * (torch.rand((count, 1, 1, 1), generator=generator) - 0.5)
    changed = torch.einsum("bij,bjhw->bihw", mixing.to(pixels), pixels)
    changed = (contrast.to(pixels) * changed + brightness.to(pixels)).clamp(-1, 1)
    chosen = torch.rand((count, 1, 1, 1), generator=generator) < share
    return torch.where(chosen.to(pixels.device), changed, pixels)

"""Where image tokens, latent tokens and question ends stand in a batch, read from `mm_token_type_ids`.

The one place that interprets token types; so any left, right or flush padding is right. Reading a layout looks at
values, for which a GPU is waited for: read it from tensors on the CPU, then move it. Knows positions, not features.
"""

import math
from dataclasses import dataclass, replace

import torch

TEXT, IMAGE, LATENT, QUESTION_END = 0, 1, 2, 3


@dataclass(frozen=True)
class TokenLayout:
    """Positions in the flattened (B * S) sequence.

    Attributes:
        image_positions: (N, tokens of an image) of the N rows that hold an image, in row order.
        latent_positions: (Q, L) of the Q questions' latent tokens; L is 0 when there are none.
        question_ends: (Q,) of the Q questions' last tokens.
        image_of_question: (Q,) index among the N images of the image a question is about.
        has_padded_guides: Whether guides of different lengths were padded.
    """

    image_positions: torch.Tensor
    latent_positions: torch.Tensor
    question_ends: torch.Tensor
    image_of_question: torch.Tensor
    has_padded_guides: bool = False

    @property
    def num_images(self) -> int:
        """Rows that hold an image."""
        return self.image_positions.shape[0]

    @property
    def num_latents(self) -> int:
        """Latent tokens of a question."""
        return self.latent_positions.shape[1]

    @property
    def latent_side(self) -> int:
        """Latent tokens along one side of their square."""
        return math.isqrt(self.num_latents)

    def with_room_for_latents(self, num_latents: int) -> "TokenLayout":
        """The layout of text alone as one of no question with so many latent tokens, for layers that must run."""
        return replace(self, latent_positions=self.latent_positions.new_zeros((0, num_latents)))

    def to(self, device: torch.device | str) -> "TokenLayout":
        """The same layout on another device."""
        return replace(
            self,
            image_positions=self.image_positions.to(device),
            latent_positions=self.latent_positions.to(device),
            question_ends=self.question_ends.to(device),
            image_of_question=self.image_of_question.to(device),
        )


def read_layout(
    mm_token_type_ids: torch.Tensor, num_image_tokens: int, guide_attention_mask: torch.Tensor | None = None
) -> TokenLayout:
    """Find images, latent groups and question ends.

    Args:
        mm_token_type_ids: (B, S) of `TEXT`, `IMAGE`, `LATENT`, `QUESTION_END`.
        num_image_tokens: Image tokens the model makes of one picture.
        guide_attention_mask: (N, G); None: all guide tokens are real.

    Returns:
        The layout; all its tensors are empty for a batch without images.

    Raises:
        ValueError: When counts do not match what the model will fill in, with both counts.
    """
    image_positions = _image_positions(mm_token_type_ids, num_image_tokens)
    image_rows = torch.div(image_positions[:, :1].flatten(), mm_token_type_ids.shape[1], rounding_mode="floor")
    latent_positions, latent_rows = _latent_groups(mm_token_type_ids)
    has_padded_guides = guide_attention_mask is not None and not bool(guide_attention_mask.all())
    if latent_positions.numel() == 0:
        empty = image_rows.new_zeros(0)
        return TokenLayout(image_positions, latent_positions, empty, empty, has_padded_guides)
    return TokenLayout(
        image_positions,
        latent_positions,
        _question_ends(mm_token_type_ids, latent_rows),
        _image_of_question(latent_rows, image_rows),
        has_padded_guides,
    )


def _image_positions(types: torch.Tensor, num_image_tokens: int) -> torch.Tensor:
    per_row = (types == IMAGE).sum(dim=1)
    wrong = (per_row != 0) & (per_row != num_image_tokens)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"Image features and image tokens do not match: row {row} holds {int(per_row[row])} image tokens, "
            f"the model makes {num_image_tokens} of one picture"
        )
    return (types == IMAGE).flatten().nonzero().view(-1, num_image_tokens)


def _latent_groups(types: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (Q, L) of contiguous latent runs and the (Q,) row of each."""
    latent = types == LATENT
    if not bool(latent.any()):
        return types.new_zeros((0, 0)), types.new_zeros(0)
    # Padding both sides lets a run's start and end be seen as changes, also at a row's border.
    padded = torch.nn.functional.pad(latent, (1, 1)).to(torch.int8)
    change = padded[:, 1:] - padded[:, :-1]
    starts, ends = (change == 1).nonzero(), (change == -1).nonzero()
    lengths = ends[:, 1] - starts[:, 1]
    length = int(lengths[0])
    if bool((lengths != length).any()):
        raise ValueError(f"Every question of a call needs the same number of latent tokens, found {lengths.tolist()}")
    if math.isqrt(length) ** 2 != length:
        raise ValueError(f"The number of latent tokens must be a perfect square, not {length}")
    first = starts[:, 0] * types.shape[1] + starts[:, 1]
    return first[:, None] + torch.arange(length, device=types.device), starts[:, 0]


def _question_ends(types: torch.Tensor, latent_rows: torch.Tensor) -> torch.Tensor:
    ends = (types == QUESTION_END).nonzero()
    ends = ends[torch.isin(ends[:, 0], latent_rows)]  # rows without latents may mark their questions, too
    if ends.shape[0] != latent_rows.shape[0] or bool((ends[:, 0] != latent_rows).any()):
        raise ValueError(
            f"Groups of latent tokens and question ends do not match: rows "
            f"{latent_rows.tolist()} hold a group each, rows {ends[:, 0].tolist()} hold a question end each"
        )
    return ends[:, 0] * types.shape[1] + ends[:, 1]


def _image_of_question(latent_rows: torch.Tensor, image_rows: torch.Tensor) -> torch.Tensor:
    image = torch.searchsorted(image_rows, latent_rows).clamp(max=max(image_rows.shape[0] - 1, 0))
    if image_rows.shape[0] == 0 or bool((image_rows[image] != latent_rows).any()):
        raise ValueError("A row holds latent tokens but no image tokens: text-only rows have neither")
    return image

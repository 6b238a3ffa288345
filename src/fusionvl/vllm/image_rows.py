"""What vLLM keeps of a picture between encoding and decoding: one row for each marked token of its prompt.

vLLM carries rows and nothing else: it cuts none off, brings those of several prompts into one batch, and may keep them
for a while. So everything that the decoder needs is in them: the type of each token, the embeddings of image and
latent tokens, and the windows of the latent tokens, spread over the rows of the image tokens. Knows tensors; knows
neither vLLM nor how pictures are encoded.

Shapes: T image tokens, L latent tokens of each question, w * w positions of a window, D decoder width.
"""

import math
from dataclasses import dataclass

import torch

from fusionvl.model.interaction import InteractionContext, pool_latents, pool_windows
from fusionvl.model.token_layout import IMAGE, LATENT, QUESTION_END


def pack_rows(
    row_types: torch.Tensor, image_tokens: torch.Tensor, global_map: torch.Tensor | None, window_size: int
) -> torch.Tensor:
    """Rows of one picture.

    Args:
        row_types: (R,) types of the marked tokens, on the CPU.
        image_tokens: (T, D).
        global_map: (2g, 2g, D); may be None where there are no latent tokens.
        window_size: w.

    Returns:
        (R, width): type, embedding, and a share of the windows.
    """
    width = image_tokens.shape[1]
    is_image, is_latent = row_types == IMAGE, row_types == LATENT
    num_latents = num_latents_of(row_types)
    columns = 1 + width
    windows = image_tokens.new_zeros(0)
    if num_latents and global_map is not None:
        windows = pool_windows(global_map[None], math.isqrt(num_latents), window_size).flatten()
        columns += width * math.ceil(windows.numel() / width / len(image_tokens))
    rows = image_tokens.new_zeros(len(row_types), columns)
    rows[:, 0] = row_types.to(rows)
    rows[is_image, 1 : 1 + width] = image_tokens
    if num_latents and global_map is not None:
        latents = pool_latents(global_map[None], math.isqrt(num_latents))[0]
        rows[is_latent, 1 : 1 + width] = latents.repeat(int(is_latent.sum()) // num_latents, 1)
        share = columns - 1 - width
        padded = torch.nn.functional.pad(windows, (0, share * len(image_tokens) - windows.numel()))
        rows[is_image, 1 + width :] = padded.view(-1, share)
    return rows


def num_latents_of(row_types: torch.Tensor) -> int:
    """L of a picture's rows."""
    return int((row_types == LATENT).sum()) // int((row_types == QUESTION_END).sum())


@dataclass(frozen=True)
class PlacedRows:
    """Rows of the pictures of a batch, at their places among its tokens.

    Attributes:
        positions: (M,) where image and latent tokens stand in the batch.
        embeddings: (M, D) theirs.
        context: For the interaction layers; None without latent tokens.
    """

    positions: torch.Tensor
    embeddings: torch.Tensor
    context: InteractionContext | None


def place_rows(pictures: list[torch.Tensor], positions: torch.Tensor, width: int, window_size: int) -> PlacedRows:
    """Unpack the rows of a batch.

    Args:
        pictures: From `pack_rows`, one of each picture, in the order of the batch.
        positions: Where the rows stand in the batch, all pictures' together.
        width: D.
        window_size: w.
    """
    lengths = [len(rows) for rows in pictures]
    types = torch.cat([rows[:, 0] for rows in pictures]).round().long()
    is_placeholder = types != QUESTION_END
    embeddings = torch.cat([rows[:, 1 : 1 + width] for rows in pictures])[is_placeholder]
    on_cpu, places = types.cpu().split(lengths), positions.split(lengths)
    gatherings = [
        gathering
        for rows, of_rows, of_places in zip(pictures, on_cpu, places, strict=True)
        if (gathering := _gathering(rows, of_rows, of_places, width, window_size)) is not None
    ]
    return PlacedRows(positions[is_placeholder], embeddings, _one_context(gatherings) if gatherings else None)


def _gathering(
    rows: torch.Tensor, types: torch.Tensor, places: torch.Tensor, width: int, window_size: int
) -> InteractionContext | None:
    """What the interaction layers need of one picture, each latent token for itself: so any numbers are one batch."""
    num_latents = num_latents_of(types)
    if not num_latents:
        return None
    is_image, is_latent, is_end = ((types == kind).to(rows.device) for kind in (IMAGE, LATENT, QUESTION_END))
    shares = rows[is_image, 1 + width :].flatten()[: num_latents * window_size**2 * width]
    latents = places[is_latent]
    return InteractionContext(
        windows=shares.view(num_latents, 1, window_size**2, width),
        image_of_question=torch.arange(len(latents), device=latents.device) % num_latents,
        latent_positions=latents[:, None],
        question_ends=places[is_end].repeat_interleave(num_latents),
    )


def _one_context(gatherings: list[InteractionContext]) -> InteractionContext:
    first = 0
    owners = []
    for gathering in gatherings:
        owners.append(first + gathering.image_of_question)
        first += len(gathering.windows)
    return InteractionContext(
        windows=torch.cat([gathering.windows for gathering in gatherings]),
        image_of_question=torch.cat(owners),
        latent_positions=torch.cat([gathering.latent_positions for gathering in gatherings]),
        question_ends=torch.cat([gathering.question_ends for gathering in gatherings]),
    )

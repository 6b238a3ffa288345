"""Encoded rows -> padded int64 tensors.

Does not know where rows come from.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from fusionvl.processing.row_encoding import EncodedRow

IGNORED_LABEL = -100

PaddingSide = Literal["left", "right"]


def pad_sequences(sequences: Sequence[Sequence[int]], length: int, side: PaddingSide, value: int) -> torch.Tensor:
    """Stack sequences of at most `length` into an int64 tensor (rows, length)."""
    padded = torch.full((len(sequences), length), value, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        values = torch.tensor(sequence, dtype=torch.int64)
        if side == "left":
            padded[row, length - len(sequence) :] = values
        else:
            padded[row, : len(sequence)] = values
    return padded


def batch_rows(
    rows: Sequence[EncodedRow],
    pad_token_id: int,
    side: PaddingSide,
    min_length: int = 0,
    multiple_of: int = 1,
) -> dict[str, torch.Tensor]:
    """Pad rows to the longest.

    Args:
        rows: B rows.
        pad_token_id: what fills `input_ids`.
        side: where padding goes.
        min_length: pad at least to this length.
        multiple_of: round the length up to a multiple of this.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids`, `labels`, `assistant_masks`, each int64 (B, S).
    """
    length = max(min_length, *(len(row.input_ids) for row in rows))
    length = -(-length // multiple_of) * multiple_of

    def pad(sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
        return pad_sequences(sequences, length, side, value)

    answers = pad([row.is_answer for row in rows], 0)
    input_ids = pad([row.input_ids for row in rows], pad_token_id)
    return {
        "input_ids": input_ids,
        "attention_mask": pad([[1] * len(row.input_ids) for row in rows], 0),
        "mm_token_type_ids": pad([row.types for row in rows], 0),
        "labels": input_ids.masked_fill(answers == 0, IGNORED_LABEL),
        "assistant_masks": answers,
    }


def batch_guides(guides: Sequence[Sequence[int]], pad_token_id: int, multiple_of: int = 1) -> dict[str, torch.Tensor]:
    """Guide ids and their mask, right padded to a multiple: int64 (N, G)."""
    length = max(len(guide) for guide in guides)
    length = -(-length // multiple_of) * multiple_of
    return {
        "guide_input_ids": pad_sequences(guides, length, "right", pad_token_id),
        "guide_attention_mask": pad_sequences([[1] * len(guide) for guide in guides], length, "right", 0),
    }

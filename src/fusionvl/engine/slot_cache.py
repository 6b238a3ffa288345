"""A cache of keys and values in which every row has its own length, for answers that begin and end at different times.

A row is written at its own position; what lies behind its end is stale and must be hidden by the attention mask.
Memory grows by blocks with the rows and the longest of them. What was held stays for the next rows; when it is too
narrow or too short, it becomes what is needed at that moment. Knows transformers' cache interface; knows no requests
and no model.

Shapes: B rows, H key-value heads, T columns held, d width of a head.
"""

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

BLOCK = 64  # columns by which memory grows


class SlotLayer(CacheLayerMixin):
    """Keys and values (B, H, T, d) of one decoder layer, written where its cache says."""

    is_sliding = False  # all columns are kept; a window is a matter of the mask

    def __init__(self, slots: "SlotCache") -> None:
        super().__init__()
        self._slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take heads, widths, dtype and device from the first states; no memory yet."""
        self.keys = key_states.new_zeros((0, key_states.shape[1], 0, key_states.shape[3]))
        self.values = value_states.new_zeros((0, value_states.shape[1], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token (B, H, 1, d) behind the end of every row; return all columns that a row may need."""
        rows, ends, columns = self._slots.step_places
        self.keys[rows, :, ends] = key_states[:, :, 0]
        self.values[rows, :, ends] = value_states[:, :, 0]
        return self.keys[: len(rows), :, :columns], self.values[: len(rows), :, :columns]

    def write(self, row: int, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Write the states (1, H, S, d) of a whole prompt into a row."""
        self.keys[row, :, : key_states.shape[2]] = key_states[0]
        self.values[row, :, : value_states.shape[2]] = value_states[0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row over another."""
        for states in (self.keys, self.values):
            states[target, :, :length] = states[source, :, :length]

    def resize(self, rows: int, columns: int) -> None:
        """Hold this many rows and columns, and keep what fits; new ones are 0, since a hidden NaN is still a NaN."""
        self.keys, self.values = (_resized(states, rows, columns) for states in (self.keys, self.values))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns of the step, and no offset."""
        return self._slots.step_places[2], 0

    def get_seq_length(self) -> int:
        """Of the longest row."""
        return max(self._slots.lengths, default=0)

    def get_max_length(self) -> int:
        """No bound of its own."""
        return -1


class SlotCache(Cache):
    """The rows of a running batch, without gaps: row B - 1 moves into the place of a row that leaves.

    Args:
        num_layers: Of the decoder.

    Attributes:
        lengths: Tokens of each row.
        step_places: Of the current step: all rows (B,), the column (B,) each is written at, columns in use.
    """

    def __init__(self, num_layers: int) -> None:
        self.lengths: list[int] = []
        self.step_places: tuple[torch.Tensor, torch.Tensor, int] = (torch.zeros(0), torch.zeros(0), 0)
        self._held = (0, 0)
        super().__init__(layers=[SlotLayer(self) for _ in range(num_layers)])

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)

    def join(self, prompt: Cache) -> int:
        """Copy the cache of one prompt into a new row, the last one.

        Returns:
            Its index.
        """
        length = prompt.layers[0].keys.shape[2]
        for layer, states in zip(self.layers, prompt.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(states.keys, states.values)
        row = len(self.lengths)
        self._fit([*self.lengths, length])
        for layer, states in zip(self.layers, prompt.layers, strict=True):
            layer.write(row, states.keys, states.values)
        self.lengths.append(length)
        return row

    def leave(self, row: int) -> None:
        """Free a row; the last row takes its index."""
        last = len(self.lengths) - 1
        if row != last:
            for layer in self.layers:
                layer.move(last, row, self.lengths[last])
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def clear(self) -> None:
        """Free all rows and their memory."""
        self.lengths.clear()
        self._resize(0, 0)

    def begin_step(self, device: torch.device) -> torch.Tensor:
        """Make room for one more token in every row.

        Returns:
            The position (B,) of the new token in each row.
        """
        self._fit(self.lengths)
        rows = torch.arange(len(self.lengths), device=device)
        ends = torch.tensor(self.lengths, device=device)
        self.step_places = rows, ends, max(self.lengths) + 1
        return ends

    def end_step(self) -> None:
        """Count the tokens that the step has written."""
        self.lengths = [length + 1 for length in self.lengths]

    def _fit(self, lengths: list[int]) -> None:
        """Hold memory for rows of these lengths and one token more; nothing is done while what is held suffices."""
        rows = 1 << (len(lengths) - 1).bit_length()
        columns = -(-(max(lengths) + 1) // BLOCK) * BLOCK
        if rows > self._held[0] or columns > self._held[1]:
            self._resize(rows, columns)

    def _resize(self, rows: int, columns: int) -> None:
        for layer in self.layers:
            if layer.is_initialized:
                layer.resize(rows, columns)
        self._held = (rows, columns)


def _resized(states: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    resized = states.new_zeros((rows, states.shape[1], columns, states.shape[3]))
    kept = states[:rows, :, :columns]
    resized[: kept.shape[0], :, : kept.shape[2]] = kept
    return resized

"""Linear layers that hold their weights in fewer bits, to answer with on a CPU. Knows matrices, no model.

`int8`: torch's own product with 8-bit weights for the few rows of a decoding step; for the many rows of a prefill the
weights are made wide again, one layer at a time. `int4`: bitsandbytes' NF4 in blocks of 64. What was chosen among
others, and by which figures, is in docs/quantization.md.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    import bitsandbytes

FEW_ROWS = 32  # up to here the narrow product is the faster one
_INPUTS_OF_KERNEL = 16  # torch's CPU kernel takes inputs in such groups, and ends the process where it cannot
_WIDE_AT_ONCE = 2**19  # weights; in float32 less than `LARGE_BLOCK`
_LEAST = 1e-30  # of a scale: a row of zeros has one, too
BLOCK = 64  # weights that share a scale in int4
_COLUMNS_OF_KERNEL = 32  # bitsandbytes' CPU kernel takes output columns in such groups
_STEPS = 4096  # of the table from a scaled weight to its NF4 code


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, one scale an output; activations stay as they are.

    Args:
        weight: (outputs, inputs), of any float dtype.
        dtype: Of the activations.

    Attributes:
        weight: (outputs, inputs) int8.
        scale: (outputs,) in the activations' dtype.
        bias: (outputs,) or None.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty_like(weight, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(weight.shape[0], dtype=dtype))
        self.register_parameter("bias", None)
        for rows in self._chunks():
            wide = weight[rows].to(torch.float32, copy=True)
            self.scale[rows] = (wide.abs().amax(dim=1).clamp_(min=_LEAST) / 127).to(dtype)
            # By the scale as it is kept: rounded to bfloat16, it would make every weight of a row as much too large.
            self.weight[rows] = wide.div_(self.scale[rows, None].float()).round_().clamp_(-127, 127).to(torch.int8)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (..., outputs)."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if rows.shape[0] <= FEW_ROWS and rows.device.type == "cpu":
            narrow = torch._weight_int8pack_mm(rows.bfloat16(), self.weight, self.scale.bfloat16())
            outputs = narrow.to(inputs.dtype)
        else:
            outputs = rows.new_empty(rows.shape[0], self.weight.shape[0])
            for part in self._chunks():
                outputs[:, part] = nn.functional.linear(rows, self.weight[part].to(rows.dtype))
            outputs *= self.scale
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*inputs.shape[:-1], -1)

    def _chunks(self) -> list[slice]:
        """Outputs in groups whose wide weights are small: the same memory serves one after the other."""
        step = max(1, _WIDE_AT_ONCE // self.weight.shape[1])
        return [slice(start, start + step) for start in range(0, self.weight.shape[0], step)]


def fits_int8(layer: nn.Linear) -> bool:
    """Whether the kernel takes a layer of these sizes."""
    return layer.in_features % _INPUTS_OF_KERNEL == 0


def fits_int4(layer: nn.Linear) -> bool:
    """Whether the kernel takes a layer of these sizes."""
    return layer.in_features % BLOCK == 0 and layer.out_features % _COLUMNS_OF_KERNEL == 0


def int4_linear(weight: torch.Tensor, dtype: torch.dtype) -> "bitsandbytes.nn.Linear4bit":
    """A layer of bitsandbytes with NF4 weights, without a bias yet, ready for several threads.

    Args:
        weight: (outputs, inputs), of sizes that `fits_int4` allows.
        dtype: Of the activations.
    """
    import bitsandbytes
    from bitsandbytes.functional import QuantState

    outputs, inputs = weight.shape
    packed, scales, levels = _nf4(weight)
    state = QuantState(absmax=scales, shape=weight.shape, code=levels, blocksize=BLOCK, quant_type="nf4", dtype=dtype)
    layer = bitsandbytes.nn.Linear4bit(
        inputs, outputs, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        packed, quant_state=state, blocksize=BLOCK, quant_type="nf4", module=layer, bnb_quantized=True
    )
    layer.quant_state = state
    layer.eval()
    with torch.inference_mode():
        layer(torch.zeros(1, inputs, dtype=dtype))  # the first call lays the weights out anew: not in two threads
    return layer


def _nf4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two codes a byte, as a column; a scale for each block; and the 16 levels. Some times as fast as bitsandbytes.

    A weight is looked up in a table, so one within a 4,096th of the middle between two levels may get either.
    """
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type("nf4", device="cpu")
    steps = torch.arange(-_STEPS, _STEPS + 1) / _STEPS
    table = torch.bucketize(steps, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    blocks = weight.reshape(-1, BLOCK)
    packed = torch.empty(blocks.shape[0], BLOCK // 2, dtype=torch.uint8)
    scales = torch.empty(blocks.shape[0])
    for start in range(0, blocks.shape[0], _WIDE_AT_ONCE // BLOCK):
        part = slice(start, start + _WIDE_AT_ONCE // BLOCK)
        wide = blocks[part].to(torch.float32, copy=True)
        scales[part] = wide.abs().amax(dim=1).clamp_(min=_LEAST)
        places = wide.div_(scales[part, None]).mul_(_STEPS).round_().add_(_STEPS).int()
        codes = table.index_select(0, places.flatten()).view(-1, BLOCK)
        packed[part] = (codes[:, 0::2] << 4) | codes[:, 1::2]
    return packed.view(-1, 1), scales, levels

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
BLOCK = 64  # weights that share a scale in int4
_COLUMNS_OF_KERNEL = 32  # bitsandbytes' CPU kernel takes output columns in such groups
_STEPS = 4096  # of the table from a scaled weight to its NF4 code


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, one scale an output; activations stay as they are.

    Attributes:
        weight: (outputs, inputs) int8.
        scale: (outputs,) in the activations' dtype.
        bias: (outputs,) or None.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, has_bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(out_features, dtype=dtype))
        bias = nn.Parameter(torch.empty(out_features, dtype=dtype), requires_grad=False) if has_bias else None
        self.register_parameter("bias", bias)

    def quantize(self, weight: torch.Tensor) -> None:
        """Take over a weight (outputs, inputs) of any float dtype."""
        scale = weight.abs().amax(dim=1).float().clamp_(min=torch.finfo(torch.float32).tiny) / 127
        self.weight.copy_((weight / scale[:, None]).round_())
        self.scale.copy_(scale)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (..., outputs)."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if rows.shape[0] <= FEW_ROWS and rows.device.type == "cpu":
            narrow = torch._weight_int8pack_mm(rows.bfloat16(), self.weight, self.scale.bfloat16())
            outputs = narrow.to(inputs.dtype)
        else:
            outputs = nn.functional.linear(rows, self.weight.to(rows.dtype)) * self.scale
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*inputs.shape[:-1], -1)

    def extra_repr(self) -> str:
        """Sizes, as `nn.Linear` shows them."""
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, bias={self.bias is not None}"


def fits_int8(layer: nn.Linear) -> bool:
    """Whether the kernel takes a layer of these sizes."""
    return layer.in_features % _INPUTS_OF_KERNEL == 0


def fits_int4(layer: nn.Linear) -> bool:
    """Whether the kernel takes a layer of these sizes."""
    return layer.in_features % BLOCK == 0 and layer.out_features % _COLUMNS_OF_KERNEL == 0


def int4_linear(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> "bitsandbytes.nn.Linear4bit":
    """A layer of bitsandbytes with NF4 weights, ready for several threads.

    Args:
        weight: (outputs, inputs), of sizes that `fits_int4` allows.
        bias: (outputs,) or None.
        dtype: Of the activations.
    """
    import bitsandbytes
    from bitsandbytes.functional import QuantState

    outputs, inputs = weight.shape
    codes, scales, levels = _nf4(weight)
    packed = (codes[:, 0::2] << 4) | codes[:, 1::2]
    state = QuantState(
        absmax=scales.flatten(), shape=weight.shape, code=levels, blocksize=BLOCK, quant_type="nf4", dtype=dtype
    )
    layer = bitsandbytes.nn.Linear4bit(
        inputs, outputs, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        packed.view(-1, 1), quant_state=state, blocksize=BLOCK, quant_type="nf4", module=layer, bnb_quantized=True
    )
    layer.quant_state = state
    layer.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)
    layer.eval()
    with torch.inference_mode():
        layer(torch.zeros(1, inputs, dtype=dtype))  # the first call lays the weights out anew: not in two threads
    return layer


def _nf4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes (blocks, 64) and scales (blocks, 1) of a weight, and the 16 levels; some times as fast as bitsandbytes.

    A weight is looked up in a table, so one within a 4,096th of the middle between two levels may get either.
    """
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type("nf4", device="cpu")
    steps = torch.arange(-_STEPS, _STEPS + 1) / _STEPS
    table = torch.bucketize(steps, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    blocks = weight.float().view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
    places = (blocks / scales).mul_(_STEPS).round_().add_(_STEPS).int()
    return table.index_select(0, places.flatten()).view(-1, BLOCK), scales, levels

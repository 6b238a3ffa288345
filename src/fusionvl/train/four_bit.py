"""Linear layers whose frozen weights are held in 4 bits (NF4, its scales quantized once more), through bitsandbytes.

Knows single layers; which ones, and the adapters on them, are in `adapters.py`. Needs the extra `quantize`.
"""

import torch
from torch import nn

try:
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Params4bit
except ImportError as error:
    raise ImportError("lora.base: nf4 needs bitsandbytes: pip install 'fusionvl[quantize]'") from error


class FrozenLinear4bit(Linear4bit):
    """`nn.Linear` on the weights that the 4 bits stand for.

    Unlike bitsandbytes' own forward pass it computes in autocast's dtype, leaves the bias in its own, and never
    rearranges the weights for answering, after which some CPUs could not train them any more.

    Args:
        weight: What to quantize, (out, in), where it is to be.
        bias: The layer's, kept as it is.
    """

    def __init__(self, weight: torch.Tensor, bias: nn.Parameter | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, quant_type="nf4", device="meta")
        packed = Params4bit(weight, requires_grad=False, quant_type="nf4", module=self)
        self.weight = packed.to(weight.device)  # a move quantizes, one to the same place, too
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply in autocast's dtype, or in that of the input."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return matmul_4bit(x.to(dtype), self.weight, quant_state=self.weight.quant_state, bias=bias)

    def dequantized(self) -> torch.Tensor:
        """The weight that the 4 bits stand for, (out, in), in float32."""
        weight: torch.Tensor = dequantize_4bit(self.weight.data, self.weight.quant_state)
        return weight.float()

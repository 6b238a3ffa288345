"""In which number format a device is fast. Knows no model and no recipe."""

import torch


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for it; one without them takes many times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()

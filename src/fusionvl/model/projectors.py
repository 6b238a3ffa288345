"""The two mappings between the vision encoder's space and the decoder's: `vision_to_text` and `text_to_vision`.

Knows widths only. Both are two-layer MLPs with the exact (erf) GELU (paper, sections 3.1 and 3.3).
"""

import torch
from torch import nn


class MappingMLP(nn.Module):
    """Two linear layers with an exact GELU in between, `in_features -> out_features -> out_features`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, out_features)
        self.fc2 = nn.Linear(out_features, out_features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        return self.fc2(nn.functional.gelu(self.fc1(features)))

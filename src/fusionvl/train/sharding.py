"""FSDP2 for a FUSION: what is sharded together, and how the whole is put together again.

Knows modules and a device mesh; knows neither recipes nor the trainer. A sharded model has `DTensor` parameters; each
process holds its share of every weight, gradient and optimizer state, and a module's weights are whole only while it
computes.
"""

import warnings
from typing import cast

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from fusionvl.model import FusionForConditionalGeneration

# Entered from outside other than by calling the model; each gathers the weights it needs like a call does.
_MODEL_ENTRANCES = ("generate", "get_global_features", "get_patch_states", "shared_features")
_VISION_LAYER_ENTRANCES = ("advance_patches", "advance_guide")


def apply_fsdp2(
    model: FusionForConditionalGeneration, mesh: DeviceMesh, compute_dtype: torch.dtype | None = None
) -> None:
    """Shard a model over the processes of a mesh, in place; every process passes the same weights.

    Every encoder, interaction and decoder layer is a group of its own. What remains (embeddings, mapping MLPs, final
    norm, head) is one more group, gathered once a pass: the mapping MLPs run several times in a pass, embeddings and
    head may be one weight, and the loss goes through the head in chunks.

    Args:
        model: On any device; its shards go to the mesh's.
        mesh: One-dimensional.
        compute_dtype: Of the gathered weights, None for their own. Shards and sums of gradients keep float32.
    """
    # Interaction layers return a view; nothing that follows them, neither ours nor a decoder's, works in place.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    fusion = model.model
    for layer in (*fusion.vision_tower.layers, *fusion.interaction_layers, *fusion.language_model.layers):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for layer in fusion.vision_tower.layers:
        for method in _VISION_LAYER_ENTRANCES:
            register_fsdp_forward_method(layer, method)
    for method in _MODEL_ENTRANCES:
        register_fsdp_forward_method(model, method)


def whole_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights on the CPU, for the first process; the others, which must call too, get an empty dictionary."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, torch.Tensor], get_model_state_dict(model, options=options))

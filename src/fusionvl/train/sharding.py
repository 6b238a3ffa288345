"""FSDP2 for a FUSION: what is sharded together, and how the whole is put together again.

Knows modules and a device mesh; knows neither recipes nor the training loop. A sharded model has `DTensor` parameters;
each process holds its share of every weight, gradient and optimizer state, and a module's weights are whole only while
it computes.
"""

import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from fusionvl.model import FusionForConditionalGeneration

# Entered from outside other than by calling the model; each gathers the weights it needs like a call does.
_MODEL_ENTRANCES = ("generate", "get_global_features", "get_patch_states", "shared_features")
_VISION_LAYER_ENTRANCES = ("advance_patches", "advance_guide")
SMALLEST_GROUP = 4 * 2**20
"""Bytes of a layer that are worth a gathering of their own: below, messages cost more than the memory they save."""


def layers_of(model: FusionForConditionalGeneration) -> list[nn.Module]:
    """Every encoder, interaction and decoder layer: what is gathered at a time."""
    fusion = model.model
    return [*fusion.vision_tower.layers, *fusion.interaction_layers, *fusion.language_model.layers]


def shard(model: FusionForConditionalGeneration, mesh: DeviceMesh, compute_dtype: torch.dtype | None = None) -> None:
    """Shard a model over the processes of a mesh, in place; weights may still be on the meta device.

    Every large layer is a group of its own. What remains (small layers, embeddings, mapping MLPs, final norm, head) is
    one more group, gathered once a pass: the mapping MLPs run several times in a pass, embeddings and head may be one
    weight, and the loss goes through the head in chunks. Weights in 4 bits stay whole in every process: they are no
    floats to cut.

    Args:
        model: Its weights are the same in every process.
        mesh: One-dimensional.
        compute_dtype: Of the gathered weights, None for their own. Shards and sums of gradients keep float32.
    """
    # Interaction layers return a view; nothing that follows them, neither ours nor a decoder's, works in place.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    packed = {weight for weight in model.parameters() if not weight.is_floating_point()}
    modules: list[nn.Module] = [*(layer for layer in layers_of(model) if _size(layer) >= SMALLEST_GROUP), model]
    for module in modules:
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=packed)
    for layer in model.model.vision_tower.layers:
        for method in _VISION_LAYER_ENTRANCES:
            register_fsdp_forward_method(layer, method)
    for method in _MODEL_ENTRANCES:
        register_fsdp_forward_method(model, method)


def _size(module: nn.Module) -> int:
    return sum(weight.numel() * weight.itemsize for weight in module.parameters())


@torch.no_grad()
def fill(parameter: nn.Parameter, whole: torch.Tensor) -> None:
    """Set a parameter, of which this process may hold a share, to a tensor that all processes have."""
    if isinstance(parameter, DTensor):
        whole = distribute_tensor(
            whole.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
        )
    parameter.copy_(whole)


def whole_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter by name, whole and on the CPU, one after the other; all processes must go through them."""
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        yield name, (weight.full_tensor() if isinstance(weight, DTensor) else weight).cpu()

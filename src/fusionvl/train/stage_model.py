"""A stage's model: from a folder onto this process's device, whole or in shards, and back into a folder.

The model is built without memory; every process reads its own share of each weight from the files, and nothing else.
So what a machine needs is the weights once, whatever the number of its processes. Knows models, recipes' settings and
safetensors files; knows no data and no steps.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import init_device_mesh
from transformers import GenerationConfig

from fusionvl.engine.loading import load_config
from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor
from fusionvl.run_folder import written_whole
from fusionvl.train.adapters import add_adapters, draw_adapters, file_name, merged, save_adapter
from fusionvl.train.config import LearningRates, Lora
from fusionvl.train.freezing import freeze, is_adapter
from fusionvl.train.processes import is_first, own_device, wait, world_size
from fusionvl.train.sharding import shard, whole_weights


def load_for_training(
    folder: Path,
    rates: LearningRates,
    *,
    attention: str,
    lora: Lora | None = None,
    seed: int = 0,
    compute_dtype: torch.dtype | None = None,
) -> FusionForConditionalGeneration:
    """Load a model in float32, with the parts frozen that do not learn; several processes hold a share each.

    Args:
        folder: Of a model in our layout.
        rates: A rate of 0 freezes a part.
        attention: Attention implementation.
        lora: Adapters to put into it.
        seed: Decides the adapters' first values.
        compute_dtype: Of weights that are gathered from several processes; None: float32.

    Raises:
        ValueError: When the folder's weights do not fit its configuration.
    """
    model = _empty(folder)
    model.set_attn_implementation(attention)
    if lora is not None:
        add_adapters(model, lora, lambda name: _tensor(folder, name).to(own_device()))
    freeze(model, rates)
    if world_size() > 1:
        shard(model, init_device_mesh(own_device().type, (world_size(),)), compute_dtype)
    _give_memory(model)
    _read(model, folder)
    draw_adapters(model, seed)
    return model


def save_result(model: FusionForConditionalGeneration, processor: FusionProcessor, folder: Path) -> None:
    """Write a trained model as an ordinary one, in float32; adapters are also written apart, beside it.

    Every process must call; the first one gathers the weights on its CPU and writes.

    Raises:
        ValueError: When a weight is not finite.
        CannotWriteError: When the disk is full.
    """
    weights = {name: weight for name, weight in whole_weights(model) if is_first()}
    with written_whole(folder, is_first=is_first(), meet=wait) as unfinished:
        if is_first():
            _check_finite(weights)
            if hasattr(model, "peft_config"):
                save_adapter(model, weights, folder.with_name("adapter"))
                weights = merged(model, weights)
            plain = _of_config(model.config)
            plain.generation_config = model.generation_config
            plain.save_pretrained(unfinished, state_dict=weights)
            processor.save_pretrained(unfinished)


def _check_finite(weights: dict[str, torch.Tensor]) -> None:
    broken = [name for name, weight in weights.items() if weight.is_floating_point() and not weight.isfinite().all()]
    if broken:
        raise ValueError(
            f"Training ended with weights that are not finite, {broken[0]} and {len(broken) - 1} more: lower the "
            "learning rates and train again in another --output"
        )


def _empty(folder: Path) -> FusionForConditionalGeneration:
    model = _of_config(load_config(str(folder)))
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _of_config(config: FusionConfig) -> FusionForConditionalGeneration:
    """A model whose weights have no memory yet; what it computes from its configuration is there."""
    with init_empty_weights():
        model = FusionForConditionalGeneration(config)
    model.tie_weights()
    return model


def _give_memory(model: nn.Module) -> None:
    """Give every weight without memory its own on this process's device; what is tied stays tied."""
    given: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta and parameter not in given:
                memory = torch.empty_like(parameter, device=own_device())
                given[parameter] = nn.Parameter(memory, requires_grad=parameter.requires_grad)
            if parameter in given:
                setattr(module, name, given[parameter])
    for buffer in model.buffers():
        buffer.data = buffer.data.to(own_device())


def _read(model: nn.Module, folder: Path) -> None:
    """Fill the weights, adapters and those in 4 bits left out, from a folder's safetensors files."""
    wanted = {
        file_name(name): parameter.detach()
        for name, parameter in model.named_parameters()
        if not is_adapter(name) and parameter.is_floating_point()
    }
    with alone_or_not(), _naming(folder):
        load(wanted, storage_reader=HuggingFaceStorageReader(str(folder)))


def _tensor(folder: Path, name: str) -> torch.Tensor:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - a file, not a mapping
                found: torch.Tensor = tensors.get_tensor(name)
                return found.float()
    raise ValueError(f"{folder} holds no weight {name}")


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"The weights in {folder} do not fit its config.json: {error}") from error


@contextmanager
def alone_or_not() -> Iterator[None]:
    """One process is as good as several: no warning. A failure is raised as the process that failed raised it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:  # torch's own kind, which is no Exception; inside are those of processes
            failure, _ = next(iter(error.failures.values()))
            raise failure from error

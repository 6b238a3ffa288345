"""Run by `torchrun` in test_distributed.py: what can only be seen from inside several processes.

usage: several_processes.py RECIPE FOLDER. Exit code 0 when every process found what it should.
"""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.processing import FusionCollator
from fusionvl.train import run, sharding
from fusionvl.train.processes import meet, part, rank, world_size
from fusionvl.train.recipe_loading import load_recipe
from fusionvl.train.sharding import shard, whole_weights
from fusionvl.train.starting_point import starting_point


def samples(number):
    turns = [{"role": "user", "content": "what " * (1 + number)}, {"role": "assistant", "content": "circle"}]
    return [{"messages": turns, "image": Image.new("RGB", (32, 32), (20 * number, 90, 0))}]


def check_sharding(recipe, gradient_checkpointing):
    """Two steps of a sharded model are those of a whole one that sees the rows of all processes."""
    whole, processor = starting_point(recipe)
    collate = FusionCollator(processor, num_latents=[4])
    if gradient_checkpointing:
        whole.activation_checkpointing_enable({"use_reentrant": False})
    sharded = copy.deepcopy(whole)
    shard(sharded, init_device_mesh("cpu", (world_size(),)))
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    held = sum(parameter.to_local().numel() for parameter in sharded.parameters())
    assert held < 0.6 * sum(parameter.numel() for parameter in whole.parameters())
    tied = sharded.model.language_model.embed_tokens.weight
    assert sharded.lm_head.weight is tied

    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in (sharded, whole)]
    for step in range(2):
        sharded(**collate(samples(2 * step + rank()))).loss.backward()
        for other in range(world_size()):
            (whole(**collate(samples(2 * step + other))).loss / world_size()).backward()
        norms = [torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) for model in (sharded, whole)]
        torch.testing.assert_close(norms[0].full_tensor(), norms[1])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step == 0:  # answering in between leaves training as it was
            check_answers(sharded, whole, processor)
    torch.testing.assert_close(dict(whole_weights(sharded)), dict(whole.named_parameters()))


def check_answers(sharded, whole, processor):
    """Same tokens, also where features of an image are reused: entered other than by a forward pass."""
    image = Image.new("RGB", (32, 32), "red")
    answers = []
    for model in (sharded, whole):
        engine = FusionEngine(model.eval(), processor)
        asked = [conversation(image, "what shape?"), conversation(image, "what colour is it?")]
        answers.append([answer.text for _ in range(2) for answer in engine.answer(asked, max_new_tokens=4)])
        model.train()
    assert answers[0] == answers[1]


def main(recipe_path, folder):
    torch.manual_seed(0)
    recipe = load_recipe(recipe_path)
    meet()
    check_sharding(recipe, gradient_checkpointing=False)  # all in one group, as these layers are small
    sharding.SMALLEST_GROUP = 0
    for gradient_checkpointing in (False, True):
        check_sharding(recipe, gradient_checkpointing)
    run.train(recipe, folder / "of-one")  # one process began this; two go on
    run.train(recipe, folder / "of-two")
    dist.barrier()
    part()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

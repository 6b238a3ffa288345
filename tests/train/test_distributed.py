"""Several processes: the forward passes, losses and weights of one, sharded or not, and after a change of number."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from fusionvl.engine import FusionEngine
from fusionvl.processing import FusionCollator
from fusionvl.train import run
from fusionvl.train.config import dump_recipe
from fusionvl.train.dataset import GroupedPositions, open_data
from fusionvl.train.starting_point import starting_point

ROWS = 60
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def mixed(recipe, tmp_path):
    """One stage over rows with and without image, three forward passes of one kind each or of both in a step."""
    records = []
    for number in range(ROWS):
        question = f"what shape is in the image? {'big ' * (number % 5)}"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "circle" if number % 2 else "box"}]
        image = {"image": f"{number % 7}.png"} if number % 3 else {}
        records.append({"id": f"id-{number}", "conversations": turns, **image})
    for number in range(7):
        Image.new("RGB", (40, 30), (30 * number, 90, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "rows.json").write_text(json.dumps(records))
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [{"json_path": "rows.json"}]}))
    stage = recipe.stages[0]
    stage.data = replace(stage.data, path=str(tmp_path / "mixture.yaml"), datasets=None)
    stage.gradient_accumulation = 4
    stage.weight_decay = 0.1
    stage.learning_rates.interaction_layers = 0.0  # frozen beside what is trained
    held_out = replace(recipe.held_out, max_new_tokens=2)
    return replace(recipe, stages=[stage], held_out=held_out, evaluate_every=2, report_to=[])


def torchrun(*arguments):
    """Start two processes as a user does; return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *arguments]
    paths = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "loss" in line}


def assert_same_run(found, expected, tolerance=1e-5):
    """Every logged number and every weight."""
    assert list(logged(found)) == list(logged(expected)) == [1, 2, 3, 4]
    for step, line in logged(expected).items():
        for name in ("loss", "lm_loss", "text_mapping_loss", "vision_mapping_loss", "grad_norm", "learning_rate"):
            assert logged(found)[step][name] == pytest.approx(line[name], rel=tolerance), (step, name)
    weights = load_file(expected / "model" / "model.safetensors")
    torch.testing.assert_close(load_file(found / "model" / "model.safetensors"), weights, rtol=0, atol=tolerance)


def as_after_step_2(whole, folder):
    """The folder of a run that was killed after its second step."""
    shutil.copytree(whole, folder)
    for later in ("model", "stage-1/model", "stage-1/checkpoint-4"):
        shutil.rmtree(folder / later)
    return folder


def chunks(checkpoint):
    """In how many pieces each tensor of a checkpoint was written."""
    entries = FileSystemReader(checkpoint / "state").read_metadata().state_dict_metadata
    return {name: len(entry.chunks) for name, entry in entries.items() if hasattr(entry, "chunks")}


def test_several_processes_train_what_one_would(mixed, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(mixed))
    one, sharded = tmp_path / "one", tmp_path / "sharded"
    run.train(mixed, one)
    as_after_step_2(one, tmp_path / "of-one")

    output = torchrun("-m", "fusionvl", "train", recipe, "parallel=fsdp2", "--output", sharded)
    assert output.count("The trained model is in") == 1
    assert_same_run(sharded, one)
    wide = "model.language_model.layers.0.mlp.up_proj.weight"
    really_sharded = [f"model.{wide}", f"optimizer.state.{wide}.exp_avg"]
    for folder, pieces in ((sharded, 2), (one, 1)):
        found = chunks(folder / "stage-1" / "checkpoint-4")
        assert [found[name] for name in really_sharded] == [pieces, pieces]
        assert not [name for name in found if "interaction_layers" in name]
    assert len((sharded / "samples.jsonl").read_text().splitlines()) == 4, "two measurements, written once"
    assert isinstance(FusionEngine.from_pretrained(sharded / "model").ask(None, "what?", max_new_tokens=2), str)

    as_after_step_2(sharded, tmp_path / "of-two")
    torchrun(Path(__file__).with_name("several_processes.py"), recipe, tmp_path)
    assert_same_run(tmp_path / "ddp", one)
    assert_same_run(tmp_path / "of-one", one)
    assert_same_run(tmp_path / "of-two", sharded, tolerance=0)
    shutil.rmtree(tmp_path / "of-two")
    run.train(replace(mixed, parallel="fsdp2"), as_after_step_2(sharded, tmp_path / "of-two"))
    assert_same_run(tmp_path / "of-two", one)


def distance(found, expected, start):
    """Of all weights, relative to the way that training took them."""
    found, expected = (load_file(folder / "model" / "model.safetensors") for folder in (found, expected))
    apart = sum(float((found[name] - weight).square().sum()) for name, weight in expected.items())
    way = sum(float((weight - start[name]).square().sum()) for name, weight in expected.items())
    return (apart / way) ** 0.5


def test_muon_takes_the_steps_of_one_process(mixed, tmp_path):
    """Muon enlarges what is small in a gradient, roundings too: the weights as a whole are compared, not each."""
    start = {name: weight.clone() for name, weight in starting_point(mixed)[0].state_dict().items()}
    run.train(mixed, tmp_path / "adamw")
    mixed = replace(mixed, stages=[replace(mixed.stages[0], optimizer="muon")])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(mixed))
    run.train(mixed, tmp_path / "one")
    assert distance(tmp_path / "adamw", tmp_path / "one", start) > 0.5
    for parallel in ("ddp", "fsdp2"):
        torchrun("-m", "fusionvl", "train", recipe, f"parallel={parallel}", "--output", tmp_path / parallel)
        for step, line in logged(tmp_path / "one").items():
            assert logged(tmp_path / parallel)[step]["loss"] == pytest.approx(line["loss"], rel=1e-3), (parallel, step)
        assert distance(tmp_path / parallel, tmp_path / "one", start) < 0.1, parallel


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_any_number_of_processes_shares_the_same_forward_passes(mixed, processes):
    mixture = open_data(mixed.stages[0].data, seed=0)
    alone = list(GroupedPositions(mixture, batch_size=2, accumulation=6, num_steps=4))
    shares = [
        GroupedPositions(mixture, 2, 6, 4, first_step=1, rank=rank, processes=processes) for rank in range(processes)
    ]
    assert all(len(share) == 24 // processes for share in shares)
    together = [batch for passes in zip(*shares, strict=True) for batch in passes]
    assert together == alone[6:]


def test_passes_that_cannot_be_shared_are_refused(tmp_path, mixed, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"Stage 1: 3 processes cannot share the 4 forward passes"):
        run.train(mixed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_text_alone_runs_every_layer_with_a_blank_image_of_no_weight(mixed):
    model, processor = starting_point(mixed)
    turns = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a circle"}]
    text = [
        {"messages": turns, "image": None},
        {"messages": [*turns[:1], {**turns[1], "content": "box"}], "image": None},
    ]
    options = {"num_latents": [1, 4], "max_length": 300}
    plain = FusionCollator(processor, **options)(text)
    batch = FusionCollator(processor, blank_images=True, **options)(text)
    assert batch.pop("blank_image") is True
    assert len(batch["input_ids"]) == 3
    assert len(batch["pixel_values"]) == 1
    assert (batch["labels"][-1] == -100).all()
    torch.testing.assert_close(model(**batch).lm_loss, model(**plain).lm_loss)

    outputs = model(**batch)
    (outputs.lm_loss + 0.0 * outputs.loss).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    vision = [parameter.grad for name, parameter in model.named_parameters() if "vision_tower" in name]
    assert all(float(gradient.abs().max()) == 0 for gradient in vision)

    with_image = [{"messages": turns, "image": Image.new("RGB", (32, 32))}]
    assert "blank_image" not in FusionCollator(processor, blank_images=True, **options)(with_image)


def test_deepspeed_zero2_trains_what_one_process_would(mixed, tmp_path):
    pytest.importorskip("deepspeed", reason="DeepSpeed is an extra: pip install 'fusionvl[deepspeed]'")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(mixed))
    run.train(mixed, tmp_path / "one")
    overrides = ["parallel=deepspeed_zero2", "--output", tmp_path / "zero2"]
    torchrun("-m", "fusionvl", "train", recipe, *overrides)
    assert_same_run(tmp_path / "zero2", tmp_path / "one", tolerance=1e-4)

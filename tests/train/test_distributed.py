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
from fusionvl.train import run
from fusionvl.train.adapters import ADAPTER_FILE
from fusionvl.train.config import Lora, dump_recipe
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


def torchrun(*arguments, processes=2):
    """Start two processes as a user does; return what they print."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        *arguments,
    ]
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
    entries = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return {name: len(entry.chunks) for name, entry in entries.items() if hasattr(entry, "chunks")}


def test_several_processes_train_what_one_would(mixed, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(mixed))
    one, two = tmp_path / "one", tmp_path / "two"
    run.train(mixed, one)
    as_after_step_2(one, tmp_path / "of-one")

    output = torchrun("-m", "fusionvl", "train", recipe, "--output", two)
    assert output.count("The trained model is in") == 1
    assert_same_run(two, one)
    wide = "model.language_model.layers.0.mlp.up_proj.weight"
    really_sharded = [f"model.{wide}", f"optimizer.state.{wide}.exp_avg"]
    for folder, pieces in ((two, 2), (one, 1)):
        found = chunks(folder / "stage-1" / "checkpoint-4")
        assert [found[name] for name in really_sharded] == [pieces, pieces]
        assert not [name for name in found if "interaction_layers" in name]
    assert len((two / "samples.jsonl").read_text().splitlines()) == 4, "two measurements, written once"
    assert isinstance(FusionEngine.from_pretrained(two / "model").ask(None, "what?", max_new_tokens=2), str)

    as_after_step_2(two, tmp_path / "of-two")
    torchrun(Path(__file__).with_name("several_processes.py"), recipe, tmp_path)
    assert_same_run(tmp_path / "of-one", one)
    assert_same_run(tmp_path / "of-two", two, tolerance=0)
    shutil.rmtree(tmp_path / "of-two")
    run.train(mixed, as_after_step_2(two, tmp_path / "of-two"))
    assert_same_run(tmp_path / "of-two", one)


def peaks(folder, processes):
    """What each process needed most for loading a model, in shares of the model's weights."""
    torchrun(Path(__file__).with_name("memory_of_loading.py"), folder, processes=processes)
    return [float(path.read_text()) for path in folder.glob(f"peak-*-of-{processes}")]


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
    torchrun("-m", "fusionvl", "train", recipe, "--output", tmp_path / "two")
    for step, line in logged(tmp_path / "one").items():
        assert logged(tmp_path / "two")[step]["loss"] == pytest.approx(line["loss"], rel=1e-3), step
    assert distance(tmp_path / "two", tmp_path / "one", start) < 0.1


@pytest.mark.parametrize("base", ["float32", "nf4"])
def test_adapters_of_several_processes_are_those_of_one(mixed, tmp_path, base):
    if base == "nf4":
        pytest.importorskip("bitsandbytes")
    mixed.stages[0] = replace(mixed.stages[0], lora=Lora(rank=4, base=base))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(mixed))
    run.train(mixed, tmp_path / "one")
    torchrun("-m", "fusionvl", "train", recipe, "--output", tmp_path / "two")
    assert_same_run(tmp_path / "two", tmp_path / "one", tolerance=1e-4)
    found = chunks(tmp_path / "two" / "stage-1" / "checkpoint-4")
    adapter = "model.model.language_model.layers.0.mlp.up_proj.lora_A.default.weight"
    assert found[adapter] == 2
    assert not [name for name in found if "base_layer" in name]
    adapters = [load_file(tmp_path / each / "stage-1" / "adapter" / ADAPTER_FILE) for each in ("one", "two")]
    torch.testing.assert_close(adapters[1], adapters[0], rtol=0, atol=1e-4)


def test_a_process_holds_its_share_of_a_model_and_no_more(tmp_path):
    """Peak memory of loading, over that of the libraries, in shares of the weights."""
    alone = peaks(tmp_path, processes=1)
    shared = peaks(tmp_path, processes=2)
    assert max(alone) < 1.3
    assert max(shared) < 0.7


def test_passes_that_cannot_be_shared_are_refused(tmp_path, mixed, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"Stage 1: 3 processes cannot share the 4 forward passes"):
        run.train(mixed, tmp_path / "out")
    assert not (tmp_path / "out").exists()

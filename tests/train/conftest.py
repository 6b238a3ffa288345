import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fusionvl.train.config import Recipe
from fusionvl.train.metrics import TIMED
from fusionvl.train.recipe_loading import load_recipe
from fusionvl.train.scratch import train_tokenizer

sys.path.append(str(Path(__file__).parents[1]))
from micro_model import MICRO_MODEL, RATES

TEXTS = ["what shape is in the image?", "is there a red circle?", "yes", "no"]


def easy_vqa(**options):
    return {"datasets": [{"kind": "easy-vqa", **options}]}


@pytest.fixture
def recipe_text() -> str:
    """A recipe of the smallest run: two stages of a few steps."""
    stage = {"max_steps": 4, "batch_size": 2, "learning_rates": RATES, "num_latents": [1, 4]}
    return yaml.safe_dump(
        {
            "name": "tiny",
            "precision": "float32",
            "save_dtype": "float32",
            "save_every": 2,
            "evaluate_every": 100,
            "log_every": 1,
            "data_workers": 0,
            "held_out": {"data": easy_vqa(part="held-out", max_turns=1), "questions": 3, "shown": 2},
            "model": MICRO_MODEL,
            "stages": [
                {"name": "1", "data": easy_vqa(questions="open", max_turns=1), **stage},
                {"name": "2", "data": easy_vqa(max_turns=2), **stage},
            ],
        }
    )


@pytest.fixture
def recipe(recipe_text, tmp_path) -> Recipe:
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_text)
    return load_recipe(path)


@pytest.fixture
def released(reference_dir, tmp_path):
    """A checkpoint in the released layout, with a tokenizer and an embedding for each of its tokens."""
    folder = shutil.copytree(reference_dir / "checkpoints" / "llama-siglip", tmp_path / "released")
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    tokenizer.add_tokens(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], special_tokens=True)
    tokenizer.add_tokens(["<vision_start>", "<vision_end>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.randn(len(tokenizer), tensors[name].shape[1]) * tensors[name].std()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": len(tokenizer)}))
    return folder


class KilledError(Exception):
    pass


@pytest.fixture
def train_until(monkeypatch):
    """Train until so many steps of a stage are done, and not a line of code further."""
    from fusionvl.train import run, training_loop  # takes seconds, and few tests need it

    def train(recipe, output, stage, steps):
        take = training_loop.TrainingLoop._take

        def killed(self, step, batches):
            if self.stage.name == stage and step > steps:
                raise KilledError
            return take(self, step, batches)

        with monkeypatch.context() as patch:
            patch.setattr(training_loop.TrainingLoop, "_take", killed)
            with pytest.raises(KilledError):
                run.train(recipe, output)

    return train


def untimed(lines):
    """Rows of a log without what depends on the machine's speed."""
    return [{name: value for name, value in json.loads(line).items() if name not in TIMED} for line in lines]


@pytest.fixture
def assert_same():
    """Two runs wrote the same log, line for line, and the same weights, bit for bit."""

    def check(first, second):
        logs = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (first, second)]
        assert untimed(logs[0]) == untimed(logs[1])
        weights = [load_file(folder / "model" / "model.safetensors") for folder in (first, second)]
        assert weights[0].keys() == weights[1].keys()
        assert [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])] == []

    return check

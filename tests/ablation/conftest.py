"""The smallest ablation: two variants, two steps."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from fusionvl.ablation.recipe import load_ablation

sys.path.append(str(Path(__file__).parents[1]))
from micro_model import MICRO_MODEL, RATES


def describe(data, **changes):
    training = {
        "name": "micro",
        "precision": "float32",
        "save_every": 2,
        "log_every": 1,
        "data_workers": 0,
        "report_to": [],
        "model": MICRO_MODEL,
        "stages": [
            {
                "name": "1",
                "data": data,
                "max_steps": 2,
                "batch_size": 2,
                "learning_rates": RATES,
                "num_latents": [4],
            }
        ],
    }
    off = {"num_interaction_layers": 0, "use_guidance": False, "mapping_loss_weight": 0.0}
    return {
        "name": "micro",
        "training": training,
        "questions": {"data": data, "limit": 3, "max_new_tokens": 2, "batch_size": 2},
        "variants": [{"name": "full"}, {"name": "llava-next", "fusion": {**off, "tile_tokens": True}}],
        "seeds": [0],
        **changes,
    }


@pytest.fixture
def write_recipe(tmp_path):
    colours = ("red", "green", "blue", "black")
    rows = []
    for colour in colours:
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
        turns = [{"from": "human", "value": "<image>\nwhat color is it?"}, {"from": "gpt", "value": colour}]
        rows.append({"id": colour, "image": f"{colour}.png", "conversations": turns})
    (tmp_path / "plain.json").write_text(json.dumps(rows))
    entry = {"json_path": str(tmp_path / "plain.json"), "sampling_strategy": "all"}

    def write(**changes):
        path = tmp_path / "ablation.yaml"
        path.write_text(yaml.safe_dump(describe({"datasets": [entry]}, **changes), sort_keys=False))
        return path

    return write


@pytest.fixture
def make_recipe(write_recipe):
    return lambda **changes: load_ablation(write_recipe(**changes))

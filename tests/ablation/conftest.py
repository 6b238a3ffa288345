"""The smallest ablation: two variants, two steps."""

import json

import pytest
import yaml
from PIL import Image

from fusionvl.ablation.recipe import load_ablation

RATES = {"vision_tower": 1e-3, "mapping": 1e-3, "interaction_layers": 1e-3, "decoder": 1e-3}


def describe(data, **changes):
    training = {
        "name": "micro",
        "precision": "float32",
        "save_every": 2,
        "log_every": 1,
        "data_workers": 0,
        "report_to": [],
        "model": {
            "vocab_size": 300,
            "vision": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
            },
            "decoder": {
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
            },
            "fusion": {"num_interaction_layers": 1, "interaction_heads": 2},
        },
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

from pathlib import Path

import pytest
import yaml

from fusionvl.data.replacement import FaultPolicy
from fusionvl.train.config import (
    LearningRates,
    MixtureData,
    ModelFromCheckpoint,
    ModelFromParts,
    dump_recipe,
    load_recipe,
)

FOLDER = Path(__file__).parents[2] / "recipes"
# Those of ablations are of another kind, and tests/ablation loads them.
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("ablation*.yaml")))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.stages


def test_numbers_without_a_dot_are_numbers(tmp_path, recipe_text):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text.replace("decoder: 0.001", "decoder: 2e-5"))
    assert load_recipe(path).stages[0].learning_rates == LearningRates(1e-3, 1e-3, 1e-3, 2e-5)


def test_overrides_win_over_the_file(tmp_path, recipe_text):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text)
    recipe = load_recipe(path, ["seed=7", "model.vocab_size=400"])
    assert (recipe.seed, recipe.model.vocab_size, recipe.name) == (7, 400, "tiny")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("max_steps: 4", "max_stepz: 4", "max_stepz"),
        ("batch_size: 2", "batch_size: two", "batch_size"),
        ("precision: float32", "precision: float8", "precision"),
        ("name: tiny", "name: tiny\nsaev_every: 3", "saev_every"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, recipe_text, old, new, named):
    assert old in recipe_text
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text.replace(old, new))
    with pytest.raises(ValueError, match=named) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_a_dumped_recipe_reads_back(tmp_path, recipe):
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


def test_the_numbers_of_the_paper():
    for path in RECIPES:
        if not path.stem.startswith("fusion"):
            continue
        stages = load_recipe(path).stages
        assert [stage.name for stage in stages] == ["1", "1.5", "2"]
        assert [stage.batch_size * stage.gradient_accumulation for stage in stages] == [256, 128, 128]
        assert [stage.learning_rates.decoder for stage in stages] == [2e-5, 2e-5, 1e-5]
        assert [stage.learning_rates.vision_tower for stage in stages] == [2e-5, 2e-6, 1e-6]
        assert [stage.max_length for stage in stages] == [2048, 4096, 4096]
        assert all(stage.warmup_ratio == 0.03 and stage.weight_decay == 0 for stage in stages)
        assert all(stage.num_latents == [4, 16, 36, 64, 144] for stage in stages)


PARTS = {"kind": "parts", "decoder": "a/b", "vision": "c/d", "chat_template": "chatml"}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (PARTS, ModelFromParts),
        ({**PARTS, "vision": {"hidden_size": 16}, "gguf_file": "x.gguf"}, ModelFromParts),
        ({"kind": "checkpoint", "checkpoint": "runs/nano/model"}, ModelFromCheckpoint),
    ],
)
def test_other_starting_points(tmp_path, recipe_text, model, kind):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(recipe_text), "model": model}))
    recipe = load_recipe(path)
    assert isinstance(recipe.model, kind)
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({**PARTS, "decodr": "a/b"}, "decodr"),
        ({key: PARTS[key] for key in ("kind", "vision", "chat_template")}, "decoder"),
        ({**PARTS, "vision": 3}, "vision"),
        ({**PARTS, "kind": "party"}, "party"),
        ({"kind": "checkpoint", "folder": "x"}, "folder"),
    ],
)
def test_mistakes_in_a_starting_point_are_named(tmp_path, recipe_text, model, named):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(recipe_text), "model": model}))
    with pytest.raises(ValueError, match=named) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


def test_mixtures_are_data(tmp_path, recipe_text):
    path = tmp_path / "recipe.yaml"
    content = yaml.safe_load(recipe_text)
    content["stages"][0]["data"] = {"path": "a.yaml", "faults": {"max_corrupt_ratio": 0.5}}
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(path)
    assert recipe.stages[0].data == MixtureData("a.yaml", faults=FaultPolicy(max_corrupt_ratio=0.5))
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"path": "a.yaml", "datasets": [{"kind": "easy-vqa"}]},
        {"path": "a.yaml", "max_turns": 2},
        {"path": "a.yaml", "faults": {"ratio": 1}},
    ],
)
def test_mistakes_in_data_are_named(tmp_path, recipe_text, data):
    path = tmp_path / "recipe.yaml"
    content = yaml.safe_load(recipe_text)
    content["stages"][0]["data"] = data
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"recipe\.yaml"):
        load_recipe(path)


def test_two_stages_of_one_name(tmp_path, recipe_text):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text.replace("name: '2'", "name: '1'"))
    with pytest.raises(ValueError, match="a name of its own"):
        load_recipe(path)

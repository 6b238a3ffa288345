from pathlib import Path

import pytest

from fusionvl.train.config import LearningRates, dump_recipe, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


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
        ("max_turns: 1", "max_turn: 1", "max_turn"),
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

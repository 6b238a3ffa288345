"""An ablation end to end, in miniature: budgets are equal, a kill costs one run, other settings are refused."""

import json

import pytest

from fusionvl import cli
from fusionvl.ablation import run as ablation_run
from fusionvl.ablation.budget import count_parameters, widened
from fusionvl.ablation.recipe import load_ablation, training_recipe
from fusionvl.ablation.results import read_results
from fusionvl.ablation.run import ablate, settings_of, trainings


def test_the_command_end_to_end(write_recipe, tmp_path, capsys):
    output = tmp_path / "out"
    assert cli.main(["ablate", str(write_recipe()), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    full, following = read_results(output / "results.jsonl")
    assert (full.variant, full.image_tokens, full.latent_tokens) == ("full", 16, 4)
    assert (following.variant, following.image_tokens, following.latent_tokens) == ("llava-next", 5 * 16, 0)
    assert following.prompt_tokens > full.prompt_tokens + 50
    assert abs(following.parameters - full.parameters) < 0.02 * full.parameters
    assert [sum(asked for _, asked in each.correct_by_kind.values()) for each in (full, following)] == [3, 3]
    assert full.seconds_per_step > 0
    assert "llava-next" in printed
    assert "(one seed)" in printed
    assert (output / "table.md").read_text() in printed + "\n"
    assert (output / "results.png").stat().st_size > 0
    assert (output / "full" / "seed-0" / "model").is_dir()
    assert not list(output.glob("*/*/stage-*"))
    assert cli.main(["ablate", str(write_recipe()), "--output", str(output), "--report"]) == 0
    assert capsys.readouterr().out == printed


def test_a_killed_ablation_goes_on(make_recipe, tmp_path, monkeypatch):
    recipe, trained = make_recipe(), []
    train, score = ablation_run.train, ablation_run.score

    def counted(training, folder):
        trained.append(training.name)
        return train(training, folder)

    def killed(engine, asked, questions):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return score(engine, asked, questions)

    monkeypatch.setattr(ablation_run, "train", counted)
    with monkeypatch.context() as patch:
        patch.setattr(ablation_run, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            ablate(recipe, tmp_path / "out")
    before = (tmp_path / "out" / "results.jsonl").read_text()
    results = ablate(recipe, tmp_path / "out")
    assert trained == ["full-0", "llava-next-0", "llava-next-0"], "what was finished is not done again"
    assert [(each.variant, each.seed) for each in results] == [("full", 0), ("llava-next", 0)]
    assert (tmp_path / "out" / "results.jsonl").read_text().startswith(before)
    assert results[0].seconds_per_step > 0
    assert results[1].seconds_per_step is None, "it was trained before the kill; its time is not known"
    assert ablate(recipe, tmp_path / "out") == results
    assert len(trained) == 3


def test_a_seed_is_finished_before_the_next_begins(make_recipe):
    runs = trainings(make_recipe(seeds=[3, 1]))
    assert list(runs) == [("full", 3), ("llava-next", 3), ("full", 1), ("llava-next", 1)]
    assert [training.seed for training in runs.values()] == [3, 3, 1, 1]


def test_results_of_other_settings_are_refused(make_recipe, tmp_path):
    out = tmp_path / "out"
    recipe = make_recipe(variants=[{"name": "full"}])
    ablate(recipe, out)
    longer = make_recipe(variants=[{"name": "full"}])
    longer.training.stages[0].max_steps = 4
    with pytest.raises(ValueError, match=r"'full' with seed 0 of other settings"):
        ablate(longer, out)
    more = make_recipe(variants=[{"name": "full"}, {"name": "none", "fusion": {"num_interaction_layers": 0}}])
    assert [each.variant for each in ablate(more, out)] == ["full", "none"], "another variant joins what is there"
    rows = tmp_path / "plain.json"
    rows.write_text(rows.read_text().replace("what color", "which color"))
    with pytest.raises(ValueError, match="results of other data under the same names"):
        ablate(recipe, out)


@pytest.mark.parametrize(
    "fusion",
    [
        {"num_interaction_layers": 0},
        {"num_interaction_layers": 0, "use_guidance": False, "mapping_loss_weight": 0.0},
        {"use_guidance": False},
    ],
)
def test_budgets_are_equal(make_recipe, fusion):
    full = make_recipe().training.model
    recipe = make_recipe(variants=[{"name": "x", "fusion": fusion}])
    variant = training_recipe(recipe, recipe.variants[0], 0).model
    equal = widened(variant, like=full)
    half_a_step = 4 * 3 * 32 * 2  # units, matrices of a gated layer, width, layers
    assert abs(count_parameters(equal) - count_parameters(full)) <= half_a_step
    if "num_interaction_layers" in fusion:
        assert equal.decoder["intermediate_size"] > full.decoder["intermediate_size"]
    else:
        assert equal == variant


def test_what_a_variant_changes(make_recipe):
    none = {"name": "none", "fusion": {"num_interaction_layers": 0}}
    recipe = make_recipe(variants=[{"name": "full"}, {"name": "few", "num_latents": [1]}, none])
    full, few, none = (training_recipe(recipe, variant, 7) for variant in recipe.variants)
    assert [each.stages[0].num_latents for each in (full, few, none)] == [[4], [1], [0]]
    assert {each.seed for each in (full, few, none)} == {7}
    assert recipe.training.stages[0].num_latents == [4], "the recipe itself is left alone"
    prints = {settings_of(each, recipe.questions) for each in (full, few, none)}
    assert len(prints) == 3
    assert settings_of(full, recipe.questions) != settings_of(
        training_recipe(recipe, recipe.variants[0], 8), recipe.questions
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seeds": []}, "seeds must be different, at least one"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "variants need different names"),
        ({"variants": [{"name": "a", "latents": [4]}]}, "latents"),
        ({"variants": [{"name": "../a"}]}, "not '../a'"),
        ({"variants": [{"name": "a", "fusion": {"guided": False}}]}, "no field 'guided'"),
        ({"variants": [{"name": "a", "num_latents": [16]}]}, "global map"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_mistakes_end_with_code_2(write_recipe, tmp_path, capsys, changes, reason):
    assert cli.main(["ablate", str(write_recipe(**changes)), "--output", str(tmp_path / "out")]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_nothing_to_report_or_no_recipe(write_recipe, tmp_path, capsys):
    assert cli.main(["ablate", str(write_recipe()), "--output", str(tmp_path), "--report"]) == 2
    assert "no results of this recipe yet" in capsys.readouterr().err
    assert cli.main(["ablate", str(tmp_path / "missing.yaml")]) == 2
    assert "no recipe" in capsys.readouterr().err


def test_results_are_json_lines(make_recipe, tmp_path):
    ablate(make_recipe(variants=[{"name": "full"}]), tmp_path)
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["correct_by_kind"]["plain"][1] == 3


@pytest.mark.parametrize("name", ["ablation", "ablation_latents"])
def test_the_recipes_of_the_repository_load(request, name):
    recipe = load_ablation(request.config.rootpath / "recipes" / f"{name}.yaml")
    assert recipe.name == name
    runs = trainings(recipe)
    assert set(runs) == {(variant.name, seed) for variant in recipe.variants for seed in recipe.seeds}
    assert len(recipe.seeds) >= 3

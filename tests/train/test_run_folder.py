"""What a run writes down about itself."""

import json
import subprocess
from dataclasses import replace

import pytest
import yaml

import fusionvl
from fusionvl.provenance import commit_of
from fusionvl.train.config import load_recipe
from fusionvl.train.run_folder import PACKAGES, claim


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_of_a_checkout(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("one = 1\n")
    assert commit_of(file) is None, "no checkout"
    git(tmp_path, "init", "-q")
    assert commit_of(file) is None, "a checkout of something else"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    head = commit_of(file)
    assert len(head) == 40
    file.write_text("one = 2\n")
    assert commit_of(file) == f"{head}+changes"


def test_seed_and_versions_are_recorded(tmp_path, recipe):
    claim(tmp_path / "out", recipe)
    versions = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert set(versions) == {*PACKAGES, "python", "commit", "seed"}
    assert versions["fusionvl"] == fusionvl.__version__


def test_a_corrected_recipe_takes_the_folder_of_a_run_that_never_began(tmp_path, recipe):
    claim(tmp_path / "out", recipe)
    claim(tmp_path / "out", replace(recipe, seed=1))
    (tmp_path / "out" / "stage-1").mkdir()
    claim(tmp_path / "out", replace(recipe, seed=1))
    with pytest.raises(ValueError, match="another recipe"):
        claim(tmp_path / "out", recipe)


def test_a_field_that_was_not_there_when_the_run_began_has_its_default(tmp_path, recipe):
    claim(tmp_path / "out", recipe)
    (tmp_path / "out" / "stage-1").mkdir()
    recorded = tmp_path / "out" / "recipe.yaml"
    fields = yaml.safe_load(recorded.read_text())
    for stage in fields["stages"]:
        assert stage.pop("optimizer") == "adamw"
    recorded.write_text(yaml.safe_dump(fields))
    claim(tmp_path / "out", recipe)
    assert load_recipe(recorded) == recipe
    with pytest.raises(ValueError, match="another recipe"):
        claim(tmp_path / "out", replace(recipe, stages=[replace(stage, optimizer="muon") for stage in recipe.stages]))

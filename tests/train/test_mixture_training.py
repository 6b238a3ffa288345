"""Training on a mixture file: the same batches after a kill, faulty rows replaced and named."""

import json
from dataclasses import replace

import pytest
import yaml
from PIL import Image

from fusionvl.data.replacement import FaultPolicy
from fusionvl.train import run
from fusionvl.train.config import MixtureData

ROWS = 40


@pytest.fixture
def mixture(tmp_path):
    """A mixture file over LLaVA rows, every second one with an image."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    records = []
    for number in range(ROWS):
        question = f"what shape is in the image? {'big ' * (number % 5)}"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "circle"}]
        image = {"image": "red.png"} if number % 2 else {}
        records.append({"id": f"id-{number}", "conversations": turns, **image})
    (tmp_path / "rows.json").write_text(json.dumps(records))
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump({"datasets": [{"json_path": "rows.json", "sampling_strategy": "all"}]}))
    return path


@pytest.fixture
def mixed(recipe, mixture):
    """The tiny recipe with the mixture in its second stage, two forward passes a step."""
    recipe.stages[1].data = MixtureData(str(mixture))
    recipe.stages[1].gradient_accumulation = 2
    return recipe


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, mixed, train_until, assert_same):
    run.train(mixed, tmp_path / "whole")
    train_until(mixed, tmp_path / "killed", "2", steps=3)
    run.train(mixed, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_faulty_rows_are_replaced_and_named(tmp_path, mixed, mixture):
    records = json.loads((tmp_path / "rows.json").read_text())
    for number, record in enumerate(records):
        if number % 8 == 1:
            record["image"] = "missing.png"
        if number % 8 == 2:
            record["conversations"][0]["value"] = "word " * 400
    (tmp_path / "rows.json").write_text(json.dumps(records))
    mixed.stages[1].max_length = 300
    mixed.stages[1].max_steps = ROWS // 4
    run.train(mixed, tmp_path / "out")
    lines = (tmp_path / "out" / "stage-2" / "quarantine.jsonl").read_text().splitlines()
    kinds = {json.loads(line)["kind"]: json.loads(line)["reason"] for line in lines}
    assert set(kinds) == {"corrupt", "over-long"}
    assert "missing.png" in kinds["corrupt"]


def test_a_missing_mixture_file_stops_the_run_before_its_first_stage(tmp_path, recipe):
    recipe.stages[1].data = MixtureData("missing/stage2.yaml")
    with pytest.raises(ValueError, match=r"Stage 2: missing.stage2\.yaml: there is no such mixture file"):
        run.train(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "record", "words"),
    [
        ({"json_path": "gone.json"}, {}, r"gone\.json"),
        ({"sampling_strategy": "some"}, {}, "unknown sampling_strategy 'some'"),
        ({"image_folder": "elsewhere"}, {"image": "red.png"}, "elsewhere"),
        ({}, {"image": "gone.png"}, r"there is no image .*gone\.png; correct 'image_folder'"),
        ({}, {"conversations": [{"from": "gpt", "value": "Hi"}]}, "a conversation starts with the human"),
        ({}, {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": ""}]}, "empty answer"),
        (
            {},
            {"image": None, "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a"}]},
            "but the record has no 'image'",
        ),
    ],
)
def test_data_that_cannot_work_stops_the_run_before_its_first_stage(tmp_path, mixed, mixture, entry, record, words):
    records = json.loads((tmp_path / "rows.json").read_text())
    (tmp_path / "rows.json").write_text(json.dumps([each | record for each in records]))
    described = yaml.safe_load(mixture.read_text())
    described["datasets"][0] |= entry
    mixture.write_text(yaml.safe_dump(described))
    with pytest.raises(ValueError, match=rf"Stage 2: .*mixture\.yaml: entry 1: .*{words}"):
        run.train(mixed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_over_long_sample_stops_the_run_when_told_to(tmp_path, mixed):
    mixed = replace(mixed, stages=mixed.stages[1:])
    mixed.stages[0].max_length = 48
    mixed.stages[0].data.faults = FaultPolicy(on_over_long="error")
    with pytest.raises(ValueError, match=r"over-long sample: rows, row \d+ \(id 'id-\d+'\): .*48"):
        run.train(mixed, tmp_path / "out")


def test_other_data_does_not_continue_the_stage(tmp_path, mixed, mixture):
    run.train(mixed, tmp_path / "out")
    (tmp_path / "out" / "stage-2" / "model").rename(tmp_path / "away")
    mixture.write_text(mixture.read_text().replace("all", "first:20"))
    with pytest.raises(ValueError, match="began with other data"):
        run.train(mixed, tmp_path / "out")

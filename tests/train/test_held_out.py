"""Questions about held-out data: asked when they should be, answered by the model as it stands, and written down."""

from dataclasses import replace

import pytest

from fusionvl.data.easy_vqa import divide_train, load_split
from fusionvl.engine import FusionEngine
from fusionvl.run_folder import read_rows
from fusionvl.train.config import HeldOut, MixtureData
from fusionvl.train.held_out import divide_data
from fusionvl.train.run import train

EASY_VQA = MixtureData(datasets=[{"kind": "easy-vqa", "part": "held-out", "max_turns": 1}])


def test_they_are_about_images_that_are_not_trained_on():
    _, samples = divide_data(HeldOut(EASY_VQA, questions=10_000), [], seed=0)
    trained, held_out = divide_train(load_split("train"))
    assert len(samples) == len(held_out), "each row once, whatever is asked for"
    assert {sample.image for sample in samples} == {image.path for image in held_out}
    assert not {sample.image for sample in samples} & {image.path for image in trained}


def test_they_are_asked_at_intervals_and_after_the_last_step(tmp_path, recipe):
    folder = train(replace(recipe, evaluate_every=3), tmp_path / "out")
    measured = [line for line in read_rows(tmp_path / "out" / "metrics.jsonl", dict) if "held_out_accuracy" in line]
    assert [(line["stage"], line["step"]) for line in measured] == [("1", 3), ("1", 4), ("2", 3), ("2", 4)]
    shown = list(read_rows(tmp_path / "out" / "samples.jsonl", dict))
    assert len(shown) == 4 * recipe.held_out.shown
    _, samples = divide_data(recipe.held_out, [], recipe.seed)
    engine = FusionEngine.from_pretrained(folder)
    for line, sample in zip(shown[-2:], samples, strict=False):
        assert (line["id"], line["question"], line["expected"]) == (
            sample.id,
            sample.turns[0].question,
            sample.turns[0].answer,
        )
        tokens = recipe.held_out.max_new_tokens
        assert line["answer"] == engine.ask(sample.image, line["question"], max_new_tokens=tokens)


def test_unreadable_images_stop_the_run_before_its_first_step(tmp_path, recipe):
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "a", "image": "a.png", "conversations": '
        '[{"from": "human", "value": "what is it?"}, {"from": "gpt", "value": "a cat"}]}\n'
    )
    (tmp_path / "a.png").write_bytes(b"not an image")
    data = MixtureData(datasets=[{"json_path": str(tmp_path / "rows.jsonl")}])
    with pytest.raises(ValueError, match=r"a\.png"):
        train(replace(recipe, held_out=HeldOut(data)), tmp_path / "out")
    assert not (tmp_path / "out").exists()

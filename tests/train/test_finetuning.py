"""Somebody's own pictures and questions, from a folder with a CSV to a model that everything opens, with its card."""

import base64
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from new_shapes import NAMES, draw_new_shapes
from PIL import Image
from starlette.testclient import TestClient
from transformers import AutoModelForImageTextToText, AutoProcessor

import fusionvl.auto  # noqa: F401 - registers FUSION
from fusionvl import FusionEngine, cli
from fusionvl.data.mixture import open_mixture
from fusionvl.engine.sources import shipped_model
from fusionvl.run_folder import read_rows
from fusionvl.serve.app import create_app
from fusionvl.serve.settings import Limits, ServerSettings
from fusionvl.train import run
from fusionvl.train.config import HeldOut, LearningRates, Lora, MixtureData, ModelFromCheckpoint
from fusionvl.train.held_out import divide_data

RECIPES = Path(__file__).parents[2] / "recipes"
SHAPE = "what shape is in the image?"


@pytest.fixture
def mine(tmp_path):
    """A folder with pictures and questions."""
    return draw_new_shapes(tmp_path / "mine", pictures=24).parent


@pytest.fixture
def own(recipe, mine):
    """The tiny recipe with one stage, on that folder, a share of whose pictures is held out."""
    stage = replace(recipe.stages[0], data=MixtureData(path=str(mine)), max_length=512)
    return replace(recipe, stages=[stage], held_out=HeldOut(share=0.25), report_to=[])


def front_matter(folder):
    _, metadata, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(metadata), text


class TestHeldOutShare:
    def test_stages_share_what_is_held_out(self, own, mine):
        mixtures = [open_mixture(mine, seed=0), open_mixture(mine / "questions.csv", seed=0)]
        kept, samples = divide_data(own.held_out, mixtures, seed=0)
        seen = {mixture.read(mixture.order.at(n)).image for mixture in kept for n in range(len(mixture))}
        asked = {sample.image for sample in samples}
        assert asked
        assert not asked & seen
        assert len(asked | seen) == 24
        assert len(samples) == 2 * len(asked), "each question once, though both stages have it"

    def test_none_of_it_is_trained_on(self, own, tmp_path, monkeypatch):
        _, samples = divide_data(own.held_out, [open_mixture(tmp_path / "mine", seed=0)], seed=0)
        trained = set()
        seed = run.StageRun.train.__globals__["TrainingLoop"]._seed

        def watched(self, step, rows):
            trained.update(rows)
            seed(self, step, rows)

        monkeypatch.setattr(run.StageRun.train.__globals__["TrainingLoop"], "_seed", watched)
        run.train(replace(own, stages=[replace(own.stages[0], max_steps=40)]), tmp_path / "out")
        assert len(trained) == 48 - len(samples), "all the rest, and nothing else"
        assert not trained & {f"questions {sample.id!r}" for sample in samples}

    def test_either_a_share_or_data(self):
        for options in ({}, {"share": 0.1, "data": MixtureData(path="a.yaml")}):
            with pytest.raises(ValueError, match="held_out: give either 'data', or the 'share'"):
                HeldOut(**options)
        with pytest.raises(ValueError, match=r"held_out\.share is 1\.5"):
            HeldOut(share=1.5)


class TestTheCard:
    def test_says_what_was_done(self, own, tmp_path):
        folder = run.train(own, tmp_path / "out")
        metadata, text = front_matter(folder)
        assert metadata == {
            "library_name": "transformers",
            "pipeline_tag": "image-text-to-text",
            "tags": ["fusionvl", "fusion"],
        }
        measured = [row for row in read_rows(tmp_path / "out" / "metrics.jsonl", dict) if "held_out_accuracy" in row]
        _, samples = divide_data(own.held_out, [open_mixture(tmp_path / "mine", seed=0)], seed=0)
        assert f"**{measured[-1]['held_out_accuracy']:.2%}** of {len(samples)} questions" in text
        assert f"| 1     | questions |   {48 - len(samples)} |     4 |           2 |" in text
        assert (tmp_path / "out" / "recipe.yaml").read_text() in text
        record = json.loads((tmp_path / "out" / "run.json").read_text())
        assert f"torch {record['versions']['torch']}" in text
        assert "fresh weights" in text

    def test_names_the_base_model_by_its_hub_name_alone(self, own, tmp_path, monkeypatch):
        """Hubs refuse a card whose base model is a folder, and where it lay is nobody's business."""
        start = run.train(own, tmp_path / "start")
        load = run.starting_point
        monkeypatch.setattr(
            run, "starting_point", lambda recipe: load(replace(recipe, model=ModelFromCheckpoint(str(start))))
        )
        by_name = replace(own, model=ModelFromCheckpoint("somebody/model"))
        metadata, text = front_matter(run.train(by_name, tmp_path / "by_name"))
        assert metadata["base_model"] == ["somebody/model"]
        assert "started from `somebody/model`" in text
        by_folder = replace(own, model=ModelFromCheckpoint(str(start)), held_out=None)
        metadata, text = front_matter(run.train(by_folder, tmp_path / "by_folder"))
        assert "base_model" not in metadata
        assert "started from `model`" in text
        assert "None was measured" in text


def test_a_released_checkpoint_with_adapters(own, released, tmp_path):
    rates = LearningRates(vision_tower=0.0, mapping=1e-3, interaction_layers=1e-3, decoder=1e-3)
    stage = replace(own.stages[0], lora=Lora(rank=4), learning_rates=rates, num_latents=[4], max_length=2048)
    recipe = replace(own, model=ModelFromCheckpoint(str(released)), stages=[replace(stage, max_steps=2)])
    folder = run.train(recipe, tmp_path / "out")
    assert (tmp_path / "out" / "stage-1" / "adapter" / "adapter_model.safetensors").is_file()
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "processor_config.json"}
    engine = FusionEngine.from_pretrained(folder)
    assert engine.model.config.early_guidance == "released"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    processor = AutoProcessor.from_pretrained(folder)
    picture = next((tmp_path / "mine").glob("*.png"))
    content = [{"type": "image", "image": Image.open(picture)}, {"type": "text", "text": SHAPE}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    answer = engine.ask(picture, SHAPE, max_new_tokens=4)
    assert processor.decode(ids, skip_special_tokens=True).strip() == answer
    assert _served(folder, picture, max_tokens=4) == answer


def _served(folder, picture, **settings):
    """What the server says with that model."""
    uri = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": SHAPE}]
    body = {"model": "mine", "messages": [{"role": "user", "content": content}], **settings}
    app = create_app("mine", lambda: FusionEngine.from_pretrained(folder), ServerSettings(limits=Limits()))
    with TestClient(app, base_url="http://127.0.0.1") as http:
        while http.get("/health").status_code != 200:
            time.sleep(0.1)
        return http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


@pytest.mark.slow
def test_the_shipped_model_learns_names_it_did_not_know(tmp_path, capsys):
    """The recipe of the repository through the command line, with fewer steps; a minute or two of one core."""
    mine = draw_new_shapes(tmp_path / "mine", pictures=200).parent
    options = [f"stages.data.path={mine}", "stages.max_steps=110", "stages.batch_size=12", "data_workers=0"]
    output = tmp_path / "out"
    assert cli.main(["train", str(RECIPES / "finetune_nano.yaml"), *options, "--output", str(output)]) == 0
    folder = output / "model"
    assert {path.name for path in folder.iterdir()} >= {
        path.name for path in shipped_model().iterdir() if path.suffix in (".json", ".safetensors", ".jinja")
    } - {"versions.json", "score.json"}
    measured = [row["held_out_accuracy"] for row in read_rows(output / "metrics.jsonl", dict) if len(row) == 3]
    assert measured[-1] >= 0.65
    unseen = draw_new_shapes(tmp_path / "unseen", pictures=20, seed=1).parent
    before, after = (_names_right(unseen, name) for name in (None, folder))
    assert before == 0, "it has no such words"
    assert after >= 0.65, "guessing among the new names is a third"
    capsys.readouterr()
    assert cli.main(["ask", str(unseen / "000.png"), SHAPE, "--model", str(folder)]) == 0
    assert capsys.readouterr().out.split("\n")[0] in NAMES


def _names_right(folder, model):
    """The share of pictures whose new name a model says."""
    engine = FusionEngine.from_pretrained(model)
    mixture = open_mixture(folder, seed=0)
    samples = [mixture.read(mixture.order.at(position)) for position in range(len(mixture))]
    named = [sample for sample in samples if sample.turns[0].question == SHAPE]
    return sum(engine.ask(sample.image, SHAPE) == sample.turns[0].answer for sample in named) / len(named)


class TestBadInput:
    """One sentence, with file and line, and exit code 2."""

    @pytest.fixture
    def refused(self, tmp_path, recipe_text, capsys):
        def train(data, **values):
            recipe = yaml.safe_load(recipe_text) | {"held_out": {"share": 0.25}, "report_to": [], **values}
            recipe["stages"] = [recipe["stages"][0] | {"data": {"path": str(data), "faults": {"on_corrupt": "error"}}}]
            (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
            code = cli.main(["train", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out")])
            assert code == 2
            told = capsys.readouterr().err[:-1].rpartition("fusionvl train: ")[2]
            assert "\n" not in told
            return told

        return train

    def test_a_missing_picture(self, mine, refused, tmp_path):
        (mine / "003.png").unlink()
        told = refused(mine)
        assert "2 of 48 rows cannot be used" in told
        assert "questions.csv:8" in told
        assert "003.png" in told
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("data_workers", [0, 1])
    def test_a_broken_picture(self, mine, refused, data_workers):
        for picture in mine.glob("*.png"):
            picture.write_bytes(picture.read_bytes()[:60])
        told = refused(mine, data_workers=data_workers, held_out=None)
        assert "questions.csv:" in told
        assert ".png as an image" in told

    def test_a_question_without_an_answer(self, mine, refused):
        path = mine / "questions.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, "000.png,why?,"]))
        assert "line 50: no answer; fill it in, or take the line out" in refused(mine)

    def test_wrong_columns(self, mine, refused):
        path = mine / "questions.csv"
        path.write_text(path.read_text().replace("answer", "label", 1))
        assert "questions.csv: line 1: the columns must be image, question, answer" in refused(mine)

    def test_an_empty_folder(self, mine, refused):
        (mine / "questions.csv").unlink()
        shutil.rmtree(mine / ".fusionvl-index", ignore_errors=True)
        assert "no folder with one" in refused(mine)

    def test_a_folder_that_is_not_there(self, mine, refused):
        assert "there is no such mixture file or folder" in refused(mine / "gone")


def test_weights_are_those_of_the_checkpoint_that_a_package_ships(own):
    model, processor = run.starting_point(replace(own, model=ModelFromCheckpoint("package:fusionvl/assets/nano")))
    assert processor.num_latents > 0
    shipped = FusionEngine.from_pretrained().model.state_dict()
    assert all(torch.equal(tensor, shipped[name].float()) for name, tensor in model.state_dict().items())

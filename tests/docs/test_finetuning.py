"""docs/finetuning.md, word for word: its data can be read, its recipes load, its upload is one that the hub takes."""

import re
import shlex
from pathlib import Path
from unittest.mock import create_autospec

import huggingface_hub
import pytest

from fusionvl import cli
from fusionvl.data.csv_file import CsvFile
from fusionvl.data.file_source import FileSource
from fusionvl.data.json_file import JsonFile
from fusionvl.train.recipe_loading import load_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "finetuning.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TRAINED = re.findall(r"fusionvl train (.*)", "".join(text for _, text in BLOCKS).replace("\\\n", ""))


def block(beginning):
    (text,) = [text for _, text in BLOCKS if text.startswith(beginning)]
    return text


def test_its_csv_and_its_json_are_read(tmp_path):
    (tmp_path / "questions.csv").write_text(block("image,question,answer"))
    (tmp_path / "questions.json").write_text(block("[{"))
    table = FileSource("csv", [CsvFile(tmp_path / "questions.csv")])
    samples = [table.read(row, epoch=0, seed=0) for row in range(len(table))]
    assert [sample.turns[0].answer for sample in samples] == ["a gear wheel", "worn", "a ball bearing"]
    assert samples[1].turns[0].question == "is it worn, or as new?"
    (talk,) = [FileSource("json", [JsonFile(tmp_path / "questions.json", lines=False)]).read(0, epoch=0, seed=0)]
    assert len(talk.turns) == 2
    assert talk.image == samples[0].image == tmp_path / "001.jpg"


def test_its_commands_are_found():
    assert len(TRAINED) >= 5


@pytest.mark.parametrize("command", TRAINED)
def test_its_recipes_load_as_they_are_called(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = cli._parse(["train", *shlex.split(command)])
    recipe = load_recipe(options.recipe, options.overrides, options.model)
    assert recipe.held_out.share == 0.1
    assert (recipe.stages[0].lora is None) == ("nano" in command or "lora=null" in command)


def test_its_upload_is_one_that_the_hub_takes(monkeypatch):
    """Against the real signatures; nothing is sent."""
    hub = create_autospec(huggingface_hub.HfApi)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    exec(block("from huggingface_hub"), {})
    made, uploaded = hub.return_value.create_repo.call_args, hub.return_value.upload_folder.call_args
    assert made.args[0] == uploaded.kwargs["repo_id"]
    assert made.kwargs["private"]
    assert uploaded.kwargs["folder_path"] == "runs/mine/model"

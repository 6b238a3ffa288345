"""The model in the package: complete, small, and as good as its card says, through every door a user may take."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from fusionvl import FusionEngine
from fusionvl.data.easy_vqa import load_split
from fusionvl.engine.engine import conversation
from fusionvl.engine.sources import shipped_model
from fusionvl.train.recipe_loading import load_recipe

MAX_WEIGHT_BYTES = 12_000_000
SAMPLED_QUESTIONS = 200
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def engine():
    return FusionEngine.from_pretrained()


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "circle.png"
    image = Image.new("RGB", (640, 480), (240, 240, 250))
    ImageDraw.Draw(image).ellipse((200, 130, 420, 350), fill=(0, 0, 255))
    image.save(path)
    return path


def test_weights_are_small_and_safe():
    weights = [path for path in shipped_model().rglob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".pth")]
    assert [path.name for path in weights] == ["model.safetensors"]
    assert weights[0].stat().st_size <= MAX_WEIGHT_BYTES


def test_all_parts_are_on(engine):
    config = engine.model.config
    assert config.use_guidance
    assert config.num_interaction_layers > 0
    assert config.mapping_loss_weight > 0
    assert all(layer.fc2.weight.abs().sum() > 0 for layer in engine.model.model.interaction_layers)


def test_the_card_holds_recipe_log_and_score():
    folder = shipped_model()
    assert load_recipe(folder / "recipe.yaml") == load_recipe(ROOT / "recipes" / "nano.yaml")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) > 100
    score = json.loads((folder / "score.json").read_text())
    assert score["questions"] == 9673
    assert f"{score['accuracy']:.2%}" in (folder / "README.md").read_text()


def test_a_sample_of_the_official_questions_agrees_with_the_score(engine):
    asked = [(image.path, turn) for image in load_split("test") for turn in image.turns]
    asked = asked[:: len(asked) // SAMPLED_QUESTIONS][:SAMPLED_QUESTIONS]
    answers = engine.answer([conversation(path, turn.question) for path, turn in asked], max_new_tokens=8)
    correct = sum(answer.text == turn.answer for answer, (_, turn) in zip(answers, asked, strict=True))
    score = json.loads((shipped_model() / "score.json").read_text())
    assert abs(correct / len(asked) - score["accuracy"]) < 0.03
    assert all(answer.finish_reason == "stop" for answer in answers)


def test_a_second_question_in_the_same_conversation(engine, picture):
    first = conversation(picture, "what shape is in the image?")
    answer = engine.answer([first])[0].text
    second = [
        *first,
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        {"role": "user", "content": [{"type": "text", "text": "what color is the shape?"}]},
    ]
    assert (answer, engine.answer([second])[0].text) == ("circle", "blue")
    assert "".join(engine.stream(second)) == "blue"


def test_through_transformers_pipeline(picture):
    model = AutoModelForImageTextToText.from_pretrained(shipped_model(), dtype="float32")
    processor = AutoProcessor.from_pretrained(shipped_model())
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.open(picture)},
                {"type": "text", "text": "is there a red shape?"},
            ],
        }
    ]
    answer = ask(text=messages, max_new_tokens=8, return_full_text=False)[0]["generated_text"]
    assert re.fullmatch(r"no", answer.strip())

"""A FUSION and any model of transformers answer the same questions, in batches as alone."""

import os
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from fusionvl.engine import FusionEngine
from fusionvl.eval.fusion_answerer import FusionAnswerer
from fusionvl.eval.model_fingerprint import model_fingerprint
from fusionvl.eval.task import TaskQuestion
from fusionvl.eval.transformers_answerer import TransformersAnswerer
from fusionvl.train.config import ModelFromScratch
from fusionvl.train.scratch import build_from_scratch

PROMPTS = ("is there a red circle ?", "what colour is it ?", "yes or no ?", "how many shapes are there in it ?")
TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ':' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ ' <image>' }}{% else %}{{ ' ' + part['text'] }}{% endif %}{% endfor %}"
    "{{ '</s>' }}{% endfor %}{% if add_generation_prompt %}{{ ' assistant:' }}{% endif %}"
)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    asked = []
    for number, colour in enumerate(("red", "green", "blue")):
        path = folder / f"{colour}.png"
        Image.linear_gradient("L").resize((30 + 10 * number, 40)).convert("RGB").rotate(90 * number).save(path)
        asked += [TaskQuestion(f"{number}-{k}", prompt, path, colour, "yes") for k, prompt in enumerate(PROMPTS)]
    return asked


@pytest.fixture
def engine(tiny):
    spec = ModelFromScratch(
        vision={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 4,
        },
        decoder={
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
        },
        fusion={"num_interaction_layers": 1, "interaction_heads": 4},
        vocab_size=320,
    )
    model, processor = build_from_scratch(spec, list(PROMPTS), num_latents=4, seed=0)
    return FusionEngine(tiny.randomise(model, gain=2.0).eval(), processor)


def llava(tiny, folder):
    """A LLaVA of a few thousand weights, saved with its processor."""
    words = sorted({word for prompt in PROMPTS for word in prompt.split()} | {"user:", "assistant:"})
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<s>", "</s>", "<image>", "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    size = {"height": 16, "width": 16}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1)
    model = tiny.randomise(LlavaForConditionalGeneration(config), gain=2.0).eval()
    model.generation_config.temperature = 0.7  # as released models have it: greedy all the same
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def llava_answerer(tiny, tmp_path):
    return TransformersAnswerer.from_pretrained(str(llava(tiny, tmp_path)), device="cpu")


def test_fusion_answers_as_its_engine(engine, questions):
    answerer = FusionAnswerer(engine, "tiny", "w", num_latents=4)
    replies = answerer.answer(questions, 5)
    expected = [engine.ask(question.image, question.prompt, num_latents=4, max_new_tokens=5) for question in questions]
    assert [reply.text for reply in replies] == expected
    assert len(set(expected)) > 3
    hits, misses = answerer.image_reuse()
    assert (hits, misses) == (21, 3), "three images, each computed once"
    assert answerer.settings()["num_latents"] == 4


def test_llava_answers_in_a_batch_as_alone(llava_answerer, questions):
    replies = llava_answerer.answer(questions, 6)
    assert len({reply.text for reply in replies}) > 3
    assert replies == [llava_answerer.answer([question], 6)[0] for question in questions]
    assert llava_answerer.answer(questions, 6) == replies, "greedy, whatever the checkpoint's settings say"
    assert {reply.finish_reason for reply in replies} <= {"stop", "length"}
    assert llava_answerer.settings()["through"] == "transformers, LlavaForConditionalGeneration"


def test_llava_sees_the_image(llava_answerer, questions):
    with_image = llava_answerer.answer(questions[:1], 6)
    other_image = llava_answerer.answer([TaskQuestion("x", questions[0].prompt, questions[4].image, "x", "")], 6)
    assert with_image != other_image


def test_llava_answers_questions_with_and_without_images_in_their_order(llava_answerer, questions):
    text_only = [TaskQuestion(f"t{k}", prompt, None, f"t{k}", "") for k, prompt in enumerate(PROMPTS)]
    mixed = [question for pair in zip(questions, text_only, strict=False) for question in pair]
    alone = [llava_answerer.answer([question], 6)[0] for question in mixed]
    assert llava_answerer.answer(mixed, 6) == alone


def test_an_end_token_is_a_stop(llava_answerer, questions):
    reply = llava_answerer.answer(questions[:1], 8)[0]
    token = llava_answerer._processor.tokenizer.convert_tokens_to_ids(reply.text.split()[1])
    llava_answerer._model.generation_config.eos_token_id = [2, token]
    stopped = llava_answerer.answer(questions[:1], 8)[0]
    assert stopped.finish_reason == "stop"
    assert reply.text.startswith(stopped.text)
    assert len(stopped.text.split()) < len(reply.text.split())


def test_fusion_answers_the_same_through_transformers(engine, questions, tmp_path):
    engine.model.save_pretrained(tmp_path)
    engine.processor.save_pretrained(tmp_path)
    through_transformers = TransformersAnswerer.from_pretrained(str(tmp_path), device="cpu")
    assert through_transformers.answer(questions, 5) == FusionAnswerer(engine, "tiny", "w").answer(questions, 5)
    assert through_transformers.settings()["weights"] == model_fingerprint(tmp_path)


def test_bad_models_and_images_are_sentences(llava_answerer, questions, tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        TransformersAnswerer.from_pretrained("/missing")
    with pytest.raises(ValueError, match=r"missing\.png"):
        llava_answerer.answer([TaskQuestion("1", "what ?", tmp_path / "missing.png", "1", "")], 2)
    llava_answerer._processor.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        TransformersAnswerer(llava_answerer._model, llava_answerer._processor, "llava", "w")


class TestFingerprints:
    """By content: where a model lies and when it was written does not matter, what is in it does."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "a").mkdir()
        save_file({"weight": torch.arange(100_000.0)}, tmp_path / "a" / "model.safetensors")
        (tmp_path / "a" / "config.json").write_text("{}")
        return tmp_path / "a"

    def test_a_copy_is_the_same_model(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "b", copy_function=shutil.copyfile)
        (tmp_path / "b" / "README.md").write_text("Another page about it.")
        assert model_fingerprint(folder) == model_fingerprint(str(tmp_path / "b"))

    def test_an_edited_one_is_another(self, folder):
        before, path = model_fingerprint(folder), folder / "model.safetensors"
        times, content = path.stat(), bytearray(path.read_bytes())
        content[-1] ^= 1  # one bit of one weight
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        edited = model_fingerprint(folder)
        (folder / "config.json").write_text('{"x": 1}')
        assert len({before, edited, model_fingerprint(folder)}) == 3

    def test_a_hub_name_is_its_files(self, folder, tmp_path, monkeypatch):
        """In the hub's cache as `huggingface_hub` lays it out."""
        cache = tmp_path / "cache"
        snapshot = cache / "models--owner--name" / "snapshots" / ("0" * 40)
        shutil.copytree(folder, snapshot)
        (cache / "models--owner--name" / "refs").mkdir()
        (cache / "models--owner--name" / "refs" / "main").write_text("0" * 40)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert model_fingerprint("owner/name") == model_fingerprint(folder)
        with pytest.raises(ValueError, match="There is no folder owner/other, and no model of this name"):
            model_fingerprint("owner/other")

    def test_no_model_is_told(self, tmp_path):
        with pytest.raises(ValueError, match="holds no"):
            model_fingerprint(tmp_path)
        with pytest.raises(ValueError, match="There is no folder"):
            model_fingerprint(tmp_path / "missing")

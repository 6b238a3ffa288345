"""FUSION in other people's training loops; the code on the page that describes them is what runs here."""

import copy
import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import Trainer
from trl import SFTConfig, SFTTrainer
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from fusionvl import lora_targets
from fusionvl.processing import FusionCollator
from fusionvl.train.scratch import build_from_scratch
from fusionvl.train.sft import FusionSFTTrainer

PAGE = Path(__file__).parents[2] / "docs" / "interoperability.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
QUESTION, ANSWERS = "What colour is it?", ("red", "blue")
TEXTS = [QUESTION, *ANSWERS] * 20


@pytest.fixture
def parts(recipe, tmp_path):
    """What the page calls model, processor, images and folder."""
    model, processor = build_from_scratch(recipe.model, TEXTS, num_latents=4, seed=0)
    images = [Image.new("RGB", (40, 32), colour) for colour in ANSWERS]
    return {"model": model, "processor": processor, "images": images, "folder": str(tmp_path)}


def prompts_and_completions(images):
    return [
        {
            "images": [image],
            "prompt": [{"role": "user", "content": QUESTION}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for image, answer in zip(images, ANSWERS, strict=True)
    ]


def conversations(images):
    return [
        {"image": row["images"][0], "messages": row["prompt"] + row["completion"]}
        for row in prompts_and_completions(images)
    ]


def sft(parts, rows=None, trainer=FusionSFTTrainer, peft_config=None, **options):
    settings = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": None, "report_to": "none"}
    settings |= {"logging_steps": 1, "save_strategy": "no", "use_cpu": True, "bf16": False} | options
    return trainer(
        model=parts["model"],
        args=SFTConfig(output_dir=parts["folder"], **settings),
        train_dataset=Dataset.from_list(rows or prompts_and_completions(parts["images"])),
        processing_class=parts["processor"],
        peft_config=peft_config,
    )


def batch_of(trainer):
    return next(iter(trainer.get_train_dataloader()))


def changed_tensors(before, after):
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


class TestPage:
    def test_trainer(self, parts):
        names = dict(parts)
        exec(EXAMPLES[0], names)
        trainer = names["trainer"]
        assert type(trainer) is Trainer
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        assert losses[-1] < 0.8 * losses[0]
        fresh, processor = copy.deepcopy(parts["model"]), parts["processor"]
        fresh.load_state_dict(names["model"].state_dict())
        batch = FusionCollator(processor, num_latents=[4])(names["samples"])
        assert trainer.compute_loss(names["model"].eval(), batch).item() == fresh.eval()(**batch).loss.item()

    def test_peft(self, parts):
        exec(EXAMPLES[1], dict(parts))
        assert (Path(parts["folder"]) / "adapter_model.safetensors").is_file()

    def test_trl(self, parts):
        names = dict(parts)
        exec(EXAMPLES[2], names)
        log = names["trainer"].state.log_history
        assert {"loss", "text_mapping_loss", "vision_mapping_loss", "mean_token_accuracy"} <= set(log[0])

    def test_every_example_is_run(self):
        assert len(EXAMPLES) == 3


def test_the_first_loss_that_trainer_logs_is_the_models(parts, tmp_path):
    batch = FusionCollator(parts["processor"], num_latents=[4])(conversations(parts["images"]))
    expected = parts["model"](**batch).loss.item()
    names = dict(parts)
    exec(EXAMPLES[0], names)
    assert names["trainer"].state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-4)


class TestTrl:
    def test_the_guide_never_holds_the_answer(self, parts):
        trainer, tokenizer = sft(parts), parts["processor"].tokenizer
        guides = [tokenizer.decode(row) for row in batch_of(trainer)["guide_input_ids"]]
        assert guides == [QUESTION] * 2

    def test_the_guide_of_messages_never_holds_the_answer(self, parts):
        rows = [{"images": [row["image"]], "messages": row["messages"]} for row in conversations(parts["images"])]
        batch = batch_of(sft(parts, rows, assistant_only_loss=True))
        tokenizer = parts["processor"].tokenizer
        assert [tokenizer.decode(row) for row in batch["guide_input_ids"]] == [QUESTION] * 2
        answers = [tokenizer.decode(row[row >= 0]) for row in batch["labels"]]
        assert sorted(answer.split("<|im_end|>")[0] for answer in answers) == ["blue", "red"]

    def test_the_batch_is_ours_but_for_what_follows_the_answer(self, parts):
        rows, ours = prompts_and_completions(parts["images"]), conversations(parts["images"])
        for row, conversation in zip(rows, ours, strict=True):
            theirs = batch_of(sft(parts, [row]))
            mine = FusionCollator(parts["processor"], num_latents=[4])([conversation])
            mine["pixel_values"] = mine["pixel_values"].float() / 127.5 - 1  # ours are bytes until the model has them
            for name, tensor in mine.items():
                if name == "labels":  # TRL takes all of the completion: the line break after the end of turn, too
                    assert tensor[0, -1] == -100 != theirs[name][0, -1]
                    assert torch.equal(theirs[name][:, :-1], tensor[:, :-1])
                else:
                    assert torch.equal(theirs[name], tensor), name

    def test_the_loss_is_ours(self, parts):
        trainer = sft(parts)
        theirs, model = batch_of(trainer), parts["model"].eval()
        expected = model(**theirs)
        assert trainer.compute_loss(model, dict(theirs)).item() == pytest.approx(expected.loss.item(), abs=1e-5)
        assert expected.loss > expected.lm_loss + 0.01  # the mapping losses are in it, and count
        metrics = trainer._metrics["eval"]
        assert metrics["text_mapping_loss"] == [pytest.approx(expected.text_mapping_loss.item(), abs=1e-5)]
        assert metrics["vision_mapping_loss"] == [pytest.approx(expected.vision_mapping_loss.item(), abs=1e-5)]

    def test_gradients_are_those_of_our_loss(self, parts):
        trainer, model = sft(parts, gradient_checkpointing=False), parts["model"].train()
        batch = batch_of(trainer)
        gradients = []
        for loss in (lambda: trainer.compute_loss(model, dict(batch)), lambda: model(**batch).loss):
            model.zero_grad()
            loss().backward()
            gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        for name, gradient in gradients[1].items():
            torch.testing.assert_close(gradients[0][name], gradient, atol=1e-6, rtol=1e-4, msg=name)

    def test_without_our_class_text_to_vision_misses_the_vision_mapping_loss(self, parts):
        """Why the class exists: if this fails, TRL calls the model's own loss and the class can go."""
        plain = sft(parts, trainer=SFTTrainer)
        model, batch = parts["model"].eval(), batch_of(plain)
        assert plain.compute_loss(model, dict(batch)).item() == pytest.approx(model(**batch).lm_loss.item(), abs=1e-5)

    def test_a_step_trains_every_part(self, parts):
        for layer in parts["model"].model.interaction_layers:
            torch.nn.init.normal_(layer.fc2.weight, std=0.02)
        before = {name: tensor.clone() for name, tensor in parts["model"].state_dict().items()}
        sft(parts, learning_rate=1e-2).train()
        changed = {
            name.removeprefix("model.").split(".")[0] for name in changed_tensors(before, parts["model"].state_dict())
        }
        expected = {"vision_tower", "vision_to_text", "text_to_vision", "interaction_layers", "language_model"}
        assert expected <= changed

    def test_accumulation_gives_the_same_mapping_gradient(self, parts):
        """The mapping losses are a mean over batches; only rounding may tell accumulated from whole."""
        twin = copy.deepcopy(parts["model"])
        sft(
            parts, per_device_train_batch_size=1, gradient_accumulation_steps=2, optim="sgd", learning_rate=0.1
        ).train()
        accumulated = parts["model"].state_dict()
        sft(parts | {"model": twin}, optim="sgd", learning_rate=0.1).train()
        for name, tensor in twin.state_dict().items():
            torch.testing.assert_close(accumulated[name], tensor, atol=1e-5, rtol=1e-3, msg=name)

    def test_with_an_adapter(self, parts):
        from peft import LoraConfig

        config = LoraConfig(r=2, target_modules=lora_targets(parts["model"].config, mapping=True))
        trainer = sft(parts, peft_config=config, learning_rate=1e-2)
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        trainer.train()
        changed = changed_tensors(before, trainer.model.state_dict())
        assert any("text_to_vision" in name for name in changed)
        assert all("lora_" in name for name in changed)

    def test_messages_with_a_loss_on_everything_are_refused(self, parts):
        rows = [{"images": [row["image"]], "messages": row["messages"]} for row in conversations(parts["images"])]
        with pytest.raises(ValueError, match="assistant_only_loss=True"):
            sft(parts, rows)

    def test_evaluation_has_the_mapping_loss_too(self, parts):
        trainer = sft(parts)
        rows = Dataset.from_list(prompts_and_completions(parts["images"]))
        metrics = trainer.evaluate(rows)
        expected = parts["model"].eval()(**batch_of(trainer)).loss.item()
        assert metrics["eval_loss"] == pytest.approx(expected, abs=1e-4)

    def test_what_trl_renders_is_what_we_render(self, parts):
        row = prompts_and_completions(parts["images"])[0]
        prompt = prepare_multimodal_messages(row["prompt"], images=row["images"])
        completion = prepare_multimodal_messages(row["completion"])
        rendered = apply_chat_template({"prompt": prompt, "completion": completion}, parts["processor"])
        whole = parts["processor"].apply_chat_template(prompt + completion)
        assert rendered["prompt"] + rendered["completion"] == whole


def test_without_trl_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "fusionvl.train.sft")
    with pytest.raises(ImportError, match=r"pip install 'fusionvl\[trl\]'"):
        importlib.import_module("fusionvl.train.sft")

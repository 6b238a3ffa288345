"""Token ids, labels and guide ids of the released code, with the real Llama 3 tokenizer."""

import pytest

from fusionvl.processing import FusionImageProcessorPil, FusionProcessor

from .conftest import expand_markers, reference_conversation

LATENT_MARKER, IGNORED, QUESTION_END = -300, -100, -400


@pytest.fixture(scope="module")
def processor(llama_tokenizer):
    return FusionProcessor(FusionImageProcessorPil(), llama_tokenizer, chat_template="llama_3", num_latents=4)


def test_vision_marks_have_the_released_ids(processor):
    assert processor.tokenizer.convert_tokens_to_ids(["<vision_start>", "<vision_end>"]) == [128256, 128257]
    assert (processor.image_token_id, processor.latent_token_id) == (128258, 128259)


@pytest.mark.parametrize("case", ["one_turn", "three_turns", "image_last"])
def test_ids_labels_and_guide_equal_the_released_ones(processor, prompts, picture, case):
    expected = prompts[f"llama_3.{case}"]
    messages = reference_conversation(expected["messages"], picture)
    batch = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, processor_kwargs={"return_labels": True}
    )
    ids, labels = expand_markers(expected["input_ids"], expected["labels"], processor)
    assert batch["input_ids"][0].tolist() == ids
    assert batch["labels"][0].tolist() == [IGNORED if label == QUESTION_END else label for label in labels]
    ends = [index for index, label in enumerate(labels) if label == QUESTION_END]
    assert (batch["mm_token_type_ids"][0] == 3).nonzero().flatten().tolist() == ends
    assert batch["guide_input_ids"][0].tolist() == expected["guide_ids"]


def test_text_only_has_no_markers(processor, prompts):
    expected = prompts["llama_3.text_only"]
    batch = processor.apply_chat_template(
        reference_conversation(expected["messages"], None), tokenize=True, return_dict=True
    )
    markup = [128256, LATENT_MARKER, 128257]
    start = expected["input_ids"].index(128256)
    assert expected["input_ids"][start : start + 3] == markup
    bare = expected["input_ids"][:start] + expected["input_ids"][start + 3 :]
    assert batch["input_ids"][0].tolist() == bare
    assert batch["mm_token_type_ids"].sum() == 0
    assert set(batch) == {"input_ids", "attention_mask", "mm_token_type_ids"}


def test_generation_prompt_is_the_beginning_of_the_conversation(processor, prompts, picture):
    messages = reference_conversation(prompts["llama_3.three_turns"]["messages"], picture)
    whole = processor.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"][0].tolist()
    prompt = processor.apply_chat_template(messages[:-1], tokenize=True, return_dict=True, add_generation_prompt=True)
    length = prompt["input_ids"].shape[1]
    assert prompt["input_ids"][0].tolist() == whole[:length]
    assert prompt["mm_token_type_ids"][0, -1] == 3

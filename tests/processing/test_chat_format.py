import pytest

from fusionvl.processing.chat_format import TEMPLATE_NAMES
from fusionvl.processing.conversation import validate_conversation

from .conftest import conversation, make_processor, reference_conversation, tiny_tokenizer

MARKS = "<vision_start><latent_image><vision_end><vision_start><image><vision_end>\n"
LATENT_MARK = "<vision_start><latent_image><vision_end>"


@pytest.mark.parametrize("template", ["llama_3", "phi_3"])
@pytest.mark.parametrize("case", ["one_turn", "three_turns", "image_last"])
def test_rendered_text_equals_the_released_one(prompts, template, case):
    processor, expected = make_processor(template), prompts[f"{template}.{case}"]
    messages = reference_conversation(expected["messages"], "unused.png")
    assert processor.apply_chat_template(messages) == expected["full_text"]
    prompt = processor.apply_chat_template(messages[:-1], add_generation_prompt=True)
    assert prompt == expected["generation_prompt"]


@pytest.mark.parametrize("template", ["llama_3", "phi_3"])
def test_text_only_is_the_released_text_without_markers(prompts, template):
    expected = prompts[f"{template}.text_only"]
    messages = reference_conversation(expected["messages"], None)
    assert make_processor(template).apply_chat_template(messages) == expected["full_text"].replace(LATENT_MARK, "")


def test_chatml_text(processor):
    messages = conversation("Q1 ", "A1", " Q2", image="x.png")
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == (
        f"<|im_start|>user\n{MARKS}Q1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        f"<|im_start|>user\n{LATENT_MARK} Q2<|im_end|>\n<|im_start|>assistant\n"
    )
    assert processor.apply_chat_template(conversation("Q")) == "<|im_start|>user\nQ<|im_end|>\n"


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_own_system_message_replaces_the_default(template):
    processor = make_processor(template)
    messages = [{"role": "system", "content": "Be brief."}, *conversation("Q", "A")]
    text = processor.apply_chat_template(messages)
    assert "Be brief." in text
    assert "You are a helpful" not in text


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_parts_and_strings_render_alike(template):
    processor = make_processor(template)
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in conversation("Q", "A")]
    assert processor.apply_chat_template(parts) == processor.apply_chat_template(conversation("Q", "A"))


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_turns_are_found_again(template):
    processor = make_processor(template)
    text = processor.apply_chat_template(
        conversation("Q1", "A1", "Q2", "A2", "Q3", image="x"), add_generation_prompt=True
    )
    turns = processor.chat_format.turns(text)
    end = processor.chat_format.answer_end
    assert [text[turn.markup_end : turn.question_end] for turn in turns] == ["Q1", "Q2", "Q3"]
    assert [text[turn.answer_start : turn.answer_end] for turn in turns] == [f"A1{end}", f"A2{end}", ""]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "llama_3, phi_3, chatml"),
        ("llama3", "llama_3, phi_3, chatml"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "generation"),
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
            "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
            "write '<vision_start>",
        ),
    ],
)
def test_templates_that_cannot_work_are_refused(template, reason):
    from fusionvl.processing import FusionImageProcessorPil, FusionProcessor

    with pytest.raises(ValueError, match=reason):
        FusionProcessor(FusionImageProcessorPil(), tiny_tokenizer("chatml"), chat_template=template)


def test_headers_need_control_tokens():
    from fusionvl.processing import FusionImageProcessorPil, FusionProcessor

    with pytest.raises(ValueError, match="no control token for the chat template's header"):
        FusionProcessor(FusionImageProcessorPil(), tiny_tokenizer("llama_3"), chat_template="chatml")


IMAGE = {"type": "image", "image": "x.png"}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "empty"),
        ([{"role": "assistant", "content": "A"}], "beginning with user"),
        ([{"role": "system", "content": "S"}], "beginning with user"),
        ([{"role": "user", "content": "Q"}] * 2, "in turn"),
        ([{"role": "tool", "content": "Q"}], "in turn"),
        ([{"role": "user", "content": None}], "content must be"),
        ([{"role": "user", "content": [{"type": "video"}]}], "parts are"),
        ([{"role": "user", "content": [{"type": "text"}]}], "parts are"),
        ([{"role": "user", "content": [IMAGE, IMAGE]}], "2 images"),
        ([*conversation("Q", "A"), {"role": "user", "content": [IMAGE]}], "message 2 .* first user message"),
        (
            [{"role": "system", "content": [IMAGE]}, {"role": "user", "content": "Q"}],
            r"first user message \(message 1\)",
        ),
    ],
)
def test_impossible_conversations(messages, reason, processor):
    with pytest.raises(ValueError, match=reason):
        validate_conversation(messages)
    with pytest.raises(ValueError):  # noqa: PT011 - the empty one is caught earlier, in other words
        processor.apply_chat_template(messages)

import pytest
import torch
from PIL import Image

from fusionvl.processing import FusionCollator

from .conftest import conversation, make_processor


@pytest.fixture
def samples():
    return [
        {"messages": conversation("Red?", "No"), "image": Image.new("RGB", (9, 9), "blue")},
        {"messages": conversation("Name a prime.", "11", "Another?", "13"), "image": None},
    ]


def test_batch_equals_the_processor_s(samples):
    processor = make_processor()
    batch = FusionCollator(processor, num_latents=[4])(samples)
    messages = [conversation("Red?", "No", image=samples[0]["image"]), samples[1]["messages"]]
    options = {"padding_side": "right", "do_normalize": False}
    expected = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_labels=True, processor_kwargs=options
    )
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    assert all(isinstance(value, torch.Tensor) for value in batch.values()), "what a loader can pin"
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["attention_mask"][:, 0].all()


def test_pixels_that_the_model_cannot_normalise_are_normalised_here(samples):
    processor = make_processor()
    processor.image_processor.image_mean = 0.25
    batch = FusionCollator(processor, num_latents=[4])(samples)
    expected = processor.image_processor(samples[0]["image"], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected)
    assert expected.dtype == torch.float32


def test_image_part_without_image_is_filled(samples, tmp_path):
    samples[0]["image"].save(tmp_path / "blue.png")
    placed = {"role": "user", "content": [{"type": "text", "text": "Red?"}, {"type": "image"}]}
    sample = {"messages": [placed, samples[0]["messages"][1]], "image": tmp_path / "blue.png"}
    collator = FusionCollator(make_processor(), num_latents=[4])
    left, right = collator(samples[:1]), collator([sample])
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert placed["content"][1] == {"type": "image"}


def test_missing_image_is_an_error(samples):
    sample = {"messages": conversation("Red?", "No", image="x"), "image": None}
    sample["messages"][0]["content"][0] = {"type": "image"}
    with pytest.raises(ValueError, match="0 images, 1 image placeholders"):
        FusionCollator(make_processor(), num_latents=[4])([sample])


def test_number_of_latents_is_drawn_from_seed_and_content():
    processor, choices = make_processor(), [0, 1, 4]
    batches = [[{"messages": conversation(f"Question {n}?", "A"), "image": None}] for n in range(300)]
    drawn = [FusionCollator(processor, choices, seed=1).draw(batch) for batch in batches]
    assert drawn == [FusionCollator(processor, choices, seed=1).draw(batch) for batch in batches]
    assert drawn != [FusionCollator(processor, choices, seed=2).draw(batch) for batch in batches]
    assert all(70 <= drawn.count(choice) <= 130 for choice in choices)


def test_samples_say_the_latents_of_their_step(samples):
    collate = FusionCollator(make_processor(), num_latents=[1])
    stated = [sample | {"num_latents": 4} for sample in samples]
    assert (collate(stated)["mm_token_type_ids"] == 2).sum() == 4
    assert (collate(samples)["mm_token_type_ids"] == 2).sum() == 1
    with pytest.raises(ValueError, match="different numbers of latent tokens"):
        collate([stated[0], samples[1]])


def test_text_alone_goes_with_a_blank_image(samples):
    collate = FusionCollator(make_processor(), num_latents=[4], blank_images=True)
    text = collate(samples[1:])
    plain = FusionCollator(make_processor(), num_latents=[4])(samples[1:])
    assert text.pop("blank_image") is True
    assert all(torch.equal(text[name], plain[name]) for name in plain)
    assert text["pixel_values"].shape == (1, 5, 3, 56, 56)
    assert text["guide_input_ids"].shape == text["guide_attention_mask"].shape
    assert "blank_image" not in collate(samples)


def test_max_length_leaves_out_turns(samples):
    processor = make_processor()
    longer = FusionCollator(processor, [4])(samples[1:])["input_ids"].shape[1]
    shorter = FusionCollator(processor, [4], max_length=longer - 1)(samples[1:])
    assert "Another" not in processor.tokenizer.decode(shorter["input_ids"][0])


def test_no_choice_of_latents():
    with pytest.raises(ValueError, match="at least one"):
        FusionCollator(make_processor(), num_latents=[])


def test_impossible_sample_is_named(samples):
    samples[1]["messages"] = conversation("Q", None)
    with pytest.raises(ValueError, match=r"sample 1 of the batch: message 1 .assistant.: content must be"):
        FusionCollator(make_processor(), num_latents=[4])(samples)

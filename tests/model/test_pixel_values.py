"""Pixels on their way in: bytes are as good as normalised pixels, and a blank image runs all layers for nothing."""

import pytest
import torch


def as_bytes(tiny, labels=False, **batch):
    """A batch with pixels that were bytes, and the same with the bytes themselves."""
    rows = [tiny.row(0, turns=2, **batch), tiny.row(1, **batch)]
    floats = tiny.batch(rows, labels=labels)
    pixels = ((floats["pixel_values"] + 1) * 127.5).round().to(torch.uint8)
    return floats | {"pixel_values": pixels.float() / 127.5 - 1}, floats | {"pixel_values": pixels}


@pytest.mark.parametrize("early_guidance", ["masked", "released"])
def test_bytes_give_what_normalised_pixels_give(tiny, early_guidance):
    model = tiny.model(early_guidance=early_guidance)
    normalised, raw = as_bytes(tiny, labels=True)
    expected, found = model(**normalised, output_logits=True), model(**raw, output_logits=True)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(
        model.get_global_features(raw["pixel_values"]), model.get_global_features(normalised["pixel_values"])
    )


def test_bytes_serve_shared_features_and_generation(tiny):
    model = tiny.model()
    normalised, raw = as_bytes(tiny, answer_last=False)
    for name in ("global_features", "patch_states"):
        expected, found = (getattr(model, f"get_{name}")(batch["pixel_values"]) for batch in (normalised, raw))
        if name == "patch_states":
            expected, found = expected.hidden_states, found.hidden_states
        assert torch.equal(found, expected)
    expected, found = (model.generate(**batch, max_new_tokens=4) for batch in (normalised, raw))
    assert found.tolist() == expected.tolist()


def test_bytes_are_normalised_in_full_precision(tiny):
    """In a model's own bfloat16, v / 127.5 would have lost bits before 1 is taken off."""
    model = tiny.model().to(torch.bfloat16)
    normalised, raw = as_bytes(tiny)
    normalised["pixel_values"] = normalised["pixel_values"].to(torch.bfloat16)
    assert torch.equal(model(**raw).logits, model(**normalised).logits)


def text_alone(tiny):
    plain = tiny.batch([tiny.row(2, image=False), tiny.row(3, image=False, turns=2)], labels=True)
    image = tiny.batch([tiny.row(0)])
    blank = {name: image[name] for name in ("pixel_values", "guide_input_ids", "guide_attention_mask")}
    return plain, plain | blank | {"blank_image": True}


@pytest.mark.parametrize("switches", [{}, {"num_interaction_layers": 0}, {"tile_tokens": True}])
def test_a_blank_image_changes_nothing(tiny, switches):
    model = tiny.model(**switches)
    plain, blank = text_alone(tiny)
    expected, found = model(**plain, output_logits=True), model(**blank, output_logits=True)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)
    assert found.text_mapping_loss == found.vision_mapping_loss == 0


@pytest.mark.parametrize("mapping_targets", ["live", "detached"])
def test_a_blank_image_runs_every_layer(tiny, mapping_targets):
    model = tiny.model(mapping_targets=mapping_targets).train()
    plain, blank = text_alone(tiny)
    model(**plain).loss.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert {name.split(".")[1] for name, gradient in expected.items() if gradient is None} == {
        "vision_tower", "vision_to_text", "text_to_vision", "interaction_layers"
    }  # fmt: skip
    model.zero_grad()
    model(**blank).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        before = expected[name]
        assert torch.equal(parameter.grad, torch.zeros_like(parameter) if before is None else before), name


def test_a_blank_image_goes_with_text_alone(tiny):
    model = tiny.model()
    plain, blank = text_alone(tiny)
    with_image = tiny.batch([tiny.row(0)], labels=True)
    with pytest.raises(ValueError, match="1 rows hold image tokens, pixel_values hold 1 images, said to be a blank"):
        model(**with_image, blank_image=True)
    with pytest.raises(ValueError, match="0 rows hold image tokens, pixel_values hold 0 images, said to be a blank"):
        model(**plain, blank_image=True)
    with pytest.raises(ValueError, match=r"0 rows hold image tokens, pixel_values hold 1 images$"):
        model(**{name: value for name, value in blank.items() if name != "blank_image"})

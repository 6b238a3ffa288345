"""A model spread over devices, and what a device must not be waited for.

No machine with several devices is needed: tensors that pretend to lie on one of two devices compute on the CPU and
refuse to be mixed. Modules are entered as accelerate's `device_map` has them entered: inputs are sent to the module's
device, outputs stay there.
"""

import pytest
import torch
from accelerate.utils import send_to_device
from torch.overrides import get_default_nowrap_functions
from torch.profiler import profile
from torch.utils._pytree import tree_map
from transformers import DynamicCache

ONE, TWO = torch.device("cpu", 0), torch.device("cpu", 1)
SYNCHRONISATIONS = {"aten::_local_scalar_dense", "aten::nonzero"}


class Placed(torch.Tensor):
    """A tensor that says on which device it lies and refuses to work with one that lies on another."""

    place: torch.device

    @classmethod
    def at(cls, tensor: torch.Tensor, place: torch.device) -> "Placed":
        placed = tensor.detach().as_subclass(cls)
        placed.place = place
        return placed

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return args[0].place
        with torch._C.DisableTorchFunctionSubclass():
            found: list[Placed] = []
            tree_map(lambda value: found.append(value) if isinstance(value, cls) else None, (args, kwargs))
            places = {tensor.place for tensor in found}
            if func is torch.Tensor.to:
                places = {_target(args[1:]) or found[0].place}
            assert len(places) == 1, f"{func} on tensors of {sorted(map(str, places))}"
            outputs = func(*args, **(kwargs or {}))
            if func in get_default_nowrap_functions():
                return outputs
            place = places.pop()
            return tree_map(lambda value: cls.at(value, place) if isinstance(value, torch.Tensor) else value, outputs)


def _target(arguments):
    """The device that `tensor.to(...)` names, itself or by another tensor; None where that has no place."""
    for argument in arguments:
        place = argument.place if isinstance(argument, Placed) else argument
        if isinstance(place, torch.device) and place.index is not None:
            return place
    return None


def spread(model, places):
    """Put each named module on its device and let inputs be sent there."""
    for name, place in places.items():
        module = model.get_submodule(name)
        for child in module.modules():
            for tensors in (child._parameters, child._buffers):
                for key, tensor in tensors.items():
                    if tensor is not None:
                        tensors[key] = Placed.at(tensor, place)

        def enter(_module, args, kwargs, place=place):
            return send_to_device(args, place), send_to_device(kwargs, place, skip_keys="past_key_values")

        module.register_forward_pre_hook(enter, with_kwargs=True)


def places_of(model, interaction, decoder):
    """The decoder cut in two, or whole; the encoder with its first half; interaction layers where they are wanted."""
    layers = len(model.model.language_model.layers)
    halves = {
        "model.vision_tower": ONE,
        "model.vision_to_text": TWO,
        "model.text_to_vision": ONE,
        "model.language_model.embed_tokens": ONE,
        **{f"model.language_model.layers.{index}": ONE if index < layers // 2 else TWO for index in range(layers)},
        "model.language_model.norm": TWO,
        "model.language_model.rotary_emb": ONE,
        "lm_head": TWO,
        **{f"model.interaction_layers.{index}": place for index, place in enumerate(interaction)},
    }
    if decoder == "in halves":
        return halves
    # One block: nothing sends the inputs of the layers within to their device.
    return {name: place for name, place in halves.items() if "language_model" not in name} | {
        "model.language_model": ONE
    }


@pytest.mark.parametrize("interaction", [(ONE, TWO), (TWO, ONE), (TWO, TWO), (ONE, ONE)])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("decoder", ["in halves", "whole"])
@pytest.mark.parametrize("layout_at", [ONE, TWO])
def test_interaction_layers_may_lie_anywhere(tiny, interaction, labels, decoder, layout_at):
    model, other = tiny.model(), tiny.model()
    batch = tiny.batch([tiny.row(0), tiny.row(1, turns=2)], labels=labels)
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "guide_attention_mask")
    layout = model.model.read_layout(*(batch[name] for name in names))
    assert layout.has_padded_guides
    spread(other, places_of(other, interaction, decoder))
    inputs = {name: Placed.at(tensor, ONE) for name, tensor in batch.items()}
    with torch.no_grad():
        expected = model(**batch)
        names = ("image_positions", "latent_positions", "question_ends", "image_of_question")
        for name in names:
            object.__setattr__(layout, name, Placed.at(getattr(layout, name), layout_at))
        found = other(**inputs, token_layout=layout)
    for name in ("loss", "lm_loss", "text_mapping_loss", "vision_mapping_loss") if labels else ("logits",):
        assert torch.equal(found[name], expected[name])


def test_tensors_of_two_devices_cannot_be_mixed():
    one, two = Placed.at(torch.ones(2), ONE), Placed.at(torch.ones(2), TWO)
    with pytest.raises(AssertionError, match="cpu:0"):
        one + two
    assert (one.to(TWO) + two).tolist() == [2.0, 2.0]


def waits(call):
    with torch.no_grad(), profile() as record:
        call()
    return sum(event.count for event in record.key_averages() if event.key in SYNCHRONISATIONS)


@pytest.fixture
def prefilled(tiny):
    model, batch = tiny.model(), tiny.batch([tiny.row(0), tiny.row(1, turns=2)])
    batch.pop("attention_mask")  # transformers looks at its values, when it makes the decoder's mask
    names = ("input_ids", "mm_token_type_ids", "guide_attention_mask")
    ids, types, guide_mask = (batch[name] for name in names)
    layout = model.model.read_layout(ids, None, types, guide_mask)
    return model, batch, layout


def test_prefill_waits_for_nothing_once_the_layout_is_read(prefilled):
    model, batch, layout = prefilled
    assert waits(lambda: model(**batch)) > 5
    assert waits(lambda: model(**batch, token_layout=layout)) == 0


def test_a_decoding_step_waits_for_nothing_and_has_no_graph_break(prefilled):
    model, batch, layout = prefilled
    cache = DynamicCache(config=model.config.text_config)
    step = {"input_ids": torch.tensor([[5], [6]]), "past_key_values": cache}
    with torch.no_grad():
        model(**batch, token_layout=layout, past_key_values=cache)
    assert waits(lambda: model(**step)) == 0
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert compiled(**step).logits.shape == (2, 1, 64)
        assert compiled(**batch, token_layout=layout).logits.shape[:2] == batch["input_ids"].shape


def test_generation_reads_the_layout_once_before_anything_runs(tiny):
    """From the inputs as they were given, which may lie on the CPU; the prefill alone is handed it."""
    model, batch = tiny.model(), tiny.batch([tiny.row(0, answer_last=False), tiny.row(1, answer_last=False)], "left")
    happened = []
    read = model.model.read_layout
    model.model.read_layout = lambda *args: happened.append("read") or read(*args)
    model.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: happened.append(getattr(kwargs["token_layout"], "num_images", None)),
        with_kwargs=True,
    )
    model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert happened == ["read", 2, None, None, None]

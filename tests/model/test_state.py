"""Nothing stays on a model between calls, and a model saved, copied or taken apart is the same model."""

import copy

import torch
from transformers import AutoModel

from fusionvl.model import FusionForConditionalGeneration


@torch.no_grad()
def run(model, batch):
    return model(**batch)


def everything_on(module):
    return {
        name: {key: value for key, value in vars(child).items() if not key.startswith("_") or key == "_buffers"}
        for name, child in module.named_modules()
    }


class TestState:
    def test_no_state_stays_on_the_model(self, tiny):
        model, batch = tiny.model(), tiny.batch([tiny.row(0), tiny.row(1, image=False)], "left")
        before = {name: set(vars(child)) for name, child in model.named_modules()}
        values = everything_on(model)
        run(model, batch)
        model.generate(**batch, max_new_tokens=2, do_sample=False)
        assert {name: set(vars(child)) for name, child in model.named_modules()} == before
        assert str(everything_on(model)) == str(values)

    def test_a_call_does_not_change_the_next(self, tiny):
        model = tiny.model()
        one, other = tiny.batch([tiny.row(0)]), tiny.batch([tiny.row(1, turns=2)])
        first = run(model, one).logits
        run(model, other)
        assert torch.equal(run(model, one).logits, first)

    def test_deepcopy_is_independent(self, tiny):
        model, batch = tiny.model(), tiny.batch([tiny.row(0)])
        logits = run(model, batch).logits
        twin = copy.deepcopy(model)
        assert torch.equal(run(twin, batch).logits, logits)
        for layer in model.model.interaction_layers:
            layer.fc2.weight.data.zero_()
        assert (run(model, batch).logits - logits).abs().max() > 1e-2
        assert torch.equal(run(twin, batch).logits, logits)

    def test_saved_and_loaded_it_is_bit_equal(self, tiny, family, tmp_path):
        model, batch = tiny.model(family), tiny.batch([tiny.row(0), tiny.row(1)])
        model.save_pretrained(tmp_path)
        again = FusionForConditionalGeneration.from_pretrained(tmp_path)
        assert torch.equal(run(again, batch).logits, run(model, batch).logits)
        saved, loaded = model.config.to_dict(), again.config.to_dict()
        for config in (
            saved,
            loaded,
            *(c[part] for c in (saved, loaded) for part in ("text_config", "vision_config")),
        ):
            config.pop("dtype")  # of a model from scratch it is nobody's choice yet
        assert loaded.pop("_name_or_path", None) in (None, str(tmp_path))
        assert loaded == {name: value for name, value in saved.items() if name != "_name_or_path"}
        tied = family == "smollm"
        assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied

    def test_every_field_is_saved(self, tiny, tmp_path):
        fields = {
            "early_guidance": "released",
            "mapping_targets": "live",
            "use_guidance": False,
            "image_token_grid": 4,
            "mapping_loss_weight": 0.7,
            "window_size": 2,
            "interaction_start": 1,
            "image_token_id": 70,
            "latent_token_id": 90,
        }
        config = tiny.config(**fields)
        config.save_pretrained(tmp_path)
        loaded = type(config).from_pretrained(tmp_path)
        assert {name: getattr(loaded, name) for name in fields} == fields

    def test_an_ordinary_decoder_inside(self, tiny, family):
        model = tiny.model(family)
        plain = AutoModel.from_config(model.config.text_config)
        assert plain.load_state_dict(model.model.language_model.state_dict(), strict=True)
        assert type(plain) is type(model.model.language_model)

"""Where and in which format a model is loaded, and what is said when it cannot be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from fusionvl.engine import FusionEngine, devices, loading, quantization
from fusionvl.engine.checkpoint_files import check_tokenizer
from fusionvl.engine.devices import choose_device, choose_dtype, is_faster_in_bfloat16
from fusionvl.engine.engine import conversation
from fusionvl.engine.events import SamplingSettings
from fusionvl.engine.quantized_layers import Int8Linear, fits_int4, fits_int8, int4_linear
from fusionvl.engine.sources import shipped_model
from fusionvl.model import FusionForConditionalGeneration

QUESTION = "What colour is the circle?"
CPU = torch.device("cpu")


@pytest.fixture
def saved(engine, tmp_path):
    """A folder as an engine's model is saved, in float32."""
    engine.model.save_pretrained(tmp_path / "saved")
    engine.processor.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


class TestDtype:
    @pytest.mark.parametrize(
        ("own", "is_fast", "expected"),
        [
            (torch.bfloat16, True, torch.bfloat16),
            (torch.bfloat16, False, torch.float32),
            (torch.float16, True, torch.bfloat16),
            (torch.float16, False, torch.float32),
            (torch.float32, True, torch.float32),
        ],
    )
    def test_auto_on_a_cpu(self, monkeypatch, own, is_fast, expected):
        monkeypatch.setattr(devices, "multiplies_in_bfloat16", lambda device: is_fast)
        assert choose_dtype("auto", own, CPU) == expected

    def test_auto_on_a_gpu_without_bfloat16(self, monkeypatch):
        """A T4 emulates it: emulation does not count."""
        asked = []
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(1) or False)
        assert choose_dtype("auto", torch.bfloat16, torch.device("cuda")) == torch.float16
        assert asked

    def test_the_named_one(self):
        assert choose_dtype("float16", torch.bfloat16, CPU) == torch.float16
        with pytest.raises(ValueError, match="'int3' is not a number format"):
            choose_dtype("int3", torch.bfloat16, CPU)

    @pytest.mark.parametrize("is_fast", [True, False])
    def test_a_checkpoint_in_bfloat16(self, monkeypatch, engine, tmp_path, is_fast):
        monkeypatch.setattr(devices, "multiplies_in_bfloat16", lambda device: is_fast)
        engine.model.to(torch.bfloat16).save_pretrained(tmp_path)
        engine.processor.save_pretrained(tmp_path)
        loaded = FusionEngine.from_pretrained(tmp_path, device="cpu")
        assert loaded.model.dtype == (torch.bfloat16 if is_fast else torch.float32)
        assert loaded.format == ("bfloat16 on cpu" if is_fast else "float32 on cpu")
        assert FusionEngine.from_pretrained(tmp_path, dtype="float32").model.dtype == torch.float32


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "avx512_fp16": True, "cpu_name": "Intel Xeon"}, True),
        ({"amx_bf16": False, "avx512_bf16": True, "avx512_fp16": True, "cpu_name": "Intel Xeon"}, False),  # hidden
        ({"amx_bf16": False, "avx512_bf16": True, "avx512_fp16": False, "cpu_name": "Intel Xeon"}, True),
        ({"amx_bf16": False, "avx512_bf16": True, "avx512_fp16": True, "cpu_name": "AMD EPYC"}, True),
        ({"amx_bf16": False, "avx512_bf16": False, "cpu_name": "Intel Xeon"}, False),
        ({"architecture": "aarch64", "bf16": True}, True),
    ],
)
def test_where_training_is_faster_in_bfloat16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert is_faster_in_bfloat16(CPU) == expected


class TestDevice:
    @pytest.mark.parametrize("name", ["bogus", "meta", "cuda:x", "xla"])
    def test_what_is_no_device(self, name):
        with pytest.raises(ValueError, match=f"'{name}' is not a device to load a model on"):
            choose_device(name)

    @pytest.mark.parametrize("name", ["cuda", "cuda:1"])
    def test_no_gpu(self, monkeypatch, name):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match=f"There is no device {name}: torch"):
            choose_device(name)
        assert choose_device("auto").type in ("cpu", "mps")

    def test_one_gpu_too_few(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert choose_device("cuda:1") == torch.device("cuda:1")
        with pytest.raises(ValueError, match="There is no device cuda:2: this machine has cuda:0 to cuda:1"):
            choose_device("cuda:2")


class TestQuantizedLayers:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("rows", [1, 5, 32, 33, 200])
    @pytest.mark.parametrize(("bits", "bound"), [("int8", 0.012), ("int4", 0.11)])
    def test_error(self, dtype, rows, bits, bound):
        """Both ways through int8, few rows and many; the error is that of rounding and no more."""
        whole = nn.Linear(128, 96).to(dtype)
        layer = {"int8": Int8Linear, "int4": int4_linear}[bits](whole.weight.data, dtype)
        layer.bias = whole.bias
        inputs = torch.randn(2, rows, 128).to(dtype)
        with torch.inference_mode():
            expected, found = whole(inputs), layer(inputs)
        assert (found.shape, found.dtype) == (expected.shape, dtype)
        assert 0 < (found - expected).float().norm() / expected.float().norm() < bound

    def test_a_row_alone_equals_the_row_in_a_batch(self):
        layer = Int8Linear(torch.randn(32, 64), torch.float32)
        rows = torch.randn(100, 64)
        together, alone = layer(rows)[:1], layer(rows[:1])
        assert (together - alone).norm() / together.norm() < 5e-3  # few rows are rounded to bfloat16

    def test_a_row_of_zeros(self):
        layer = Int8Linear(torch.zeros(2, 32), torch.float32)
        assert layer(torch.ones(1, 32)).tolist() == [[0.0, 0.0]]

    def test_sizes(self):
        """torch's kernel ends the process where it cannot: such layers stay as they are."""
        assert fits_int8(nn.Linear(48, 7))
        assert not fits_int8(nn.Linear(40, 64))
        assert fits_int4(nn.Linear(64, 32))
        assert not fits_int4(nn.Linear(64, 48))
        assert not fits_int4(nn.Linear(96, 32))


class TestQuantizedModels:
    @pytest.mark.parametrize(("bits", "least"), [("int8", 9), ("int4", 7)])
    def test_the_shipped_model_answers_as_before(self, bits, least):
        whole, narrow = FusionEngine.from_pretrained(), FusionEngine.from_pretrained(quantize=bits)
        assert narrow.format == f"{bits} on cpu"
        pictures = sorted(Path("examples").glob("*.png")) * 10
        questions = [
            "what shape is in the image?", "what color is the shape?", "is there a red shape?", "is there a circle?",
            "does the image contain a triangle?", "is a blue shape present?", "is there not a square?",
            "what is the color of the shape?", "which shape is this?", "is there a rectangle?",
        ]  # fmt: skip
        asked = [conversation(picture, question) for picture, question in zip(pictures, questions, strict=False)]
        expected = [answer.text for answer in whole.answer(asked)]
        found = [answer.text for answer in narrow.answer(asked)]
        assert sum(map(str.__eq__, expected, found)) >= least
        assert len(set(expected)) > 2

    @pytest.mark.parametrize("name", ["llama-siglip", "llama-siglip2", "phi-siglip"])
    @pytest.mark.parametrize("bits", ["int8", "int4"])
    def test_released_layouts(self, reference_dir, name, bits):
        folder = str(reference_dir / "checkpoints" / name)
        config = loading.load_config(folder)
        narrow = quantization.load_on_cpu(folder, config, torch.float32, bits)
        whole = loading.load_model(folder, torch.float32).eval()
        chosen = quantization.layer_bits(whole, bits)
        assert (set(chosen.values()) == {"int8"}) == (bits == "int8")
        for layer, kind in chosen.items():
            old, new = whole.get_submodule(layer), narrow.get_submodule(layer)
            inputs = torch.randn(40, old.in_features)
            with torch.inference_mode():
                expected, found = old(inputs), new(inputs)
            assert 0 < (found - expected).norm() / expected.norm() < {"int8": 0.02, "int4": 0.15}[kind], layer
        left = dict(whole.named_parameters())
        for key, parameter in narrow.named_parameters():
            if key in left and parameter.dtype.is_floating_point:
                assert torch.equal(parameter, left[key]), key
        with torch.no_grad():
            ids = torch.randint(3, 250, (1, 12))
            assert narrow(ids).logits.shape == whole(ids).logits.shape

    def test_less_memory_as_foretold(self):
        config = loading.load_config(str(shipped_model()))
        sizes = []
        for bits in (None, "int8", "int4"):
            model = FusionEngine.from_pretrained(quantize=bits, dtype="bfloat16").model
            tensors = [*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith(("weight", "scale")))]
            held = sum(tensor.nbytes for tensor in tensors)
            foretold = quantization.weight_bytes(config, torch.bfloat16, bits)
            assert foretold == pytest.approx(held, rel=0.05)
            sizes.append(foretold)
        assert sizes[0] > 1.6 * sizes[1] > 1.8 * sizes[2]

    def test_threads(self):
        import concurrent.futures

        engine = FusionEngine.from_pretrained(quantize="int4")
        pictures = sorted(Path("examples").glob("*.png"))
        expected = engine.ask(pictures[0], "what shape is in the image?")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda _: engine.ask(pictures[0], "what shape is in the image?"), range(8))
            assert set(answers) == {expected}

    def test_missing_and_unexpected_tensors(self, saved):
        from safetensors.torch import load_file, save_file

        tensors = load_file(saved / "model.safetensors")
        tensors["model.extra"] = tensors.pop("model.vision_to_text.fc1.weight")
        save_file(tensors, saved / "model.safetensors", {"format": "pt"})
        for bits in (None, "int8"):
            with pytest.raises(ValueError, match=r"1 missing keys \['model.vision_to_text.+1 unexpected"):
                FusionEngine.from_pretrained(saved, quantize=bits, device="cpu")

    def test_what_cannot_be(self, monkeypatch, saved):
        with pytest.raises(ValueError, match="'int2' is no quantisation of ours: choose int8 or int4"):
            FusionEngine.from_pretrained(saved, quantize="int2")
        with pytest.raises(ValueError, match="not for mps"):
            quantization.check_bits("int8", torch.device("mps"))
        with pytest.raises(ValueError, match="quantize is for one device"):
            FusionEngine.from_pretrained(saved, quantize="int8", device_map="auto")
        with pytest.raises(ValueError, match="leave device out"):
            FusionEngine.from_pretrained(saved, device="cpu", device_map="auto")
        monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
        with pytest.raises(ValueError, match=r"int4 on cpu needs bitsandbytes: pip install 'fusionvl\[quantize\]'"):
            FusionEngine.from_pretrained(saved, quantize="int4", device="cpu")


class TestPassedThrough:
    def test_device_map(self, saved, engine, picture):
        """Everything on the CPU, and the decoder on disk: accelerate moves it in layer by layer."""
        loaded = FusionEngine.from_pretrained(saved, device_map={"": "cpu"})
        assert loaded.ask(picture, QUESTION, max_new_tokens=4) == engine.ask(picture, QUESTION, max_new_tokens=4)

    def test_attention(self, saved, engine, picture):
        for options in ({}, {"quantize": "int8"}):
            loaded = FusionEngine.from_pretrained(saved, attn_implementation="eager", **options)
            assert loaded.model.config.text_config._attn_implementation == "eager"
            assert loaded.ask(picture, QUESTION, max_new_tokens=2) is not None

    def test_a_gpu_gets_its_weights_directly(self, monkeypatch, saved):
        """No copy on the CPU first: transformers is told where they belong."""
        told = {}

        def from_pretrained(source, **options):
            told.update(options)
            raise OSError("seen")

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(loading, "free_bytes", lambda device: 2**40)
        monkeypatch.setattr(FusionForConditionalGeneration, "from_pretrained", from_pretrained)
        for bits in (None, "int8", "int4"):
            told.clear()
            with pytest.raises(ValueError, match="seen"):
                FusionEngine.from_pretrained(saved, device="cuda", quantize=bits, dtype="float16")
            assert told["device_map"] == {"": torch.device("cuda")}
            given = told.get("quantization_config")
            assert (given is None) == (bits is None)
            assert bits is None or (given.load_in_8bit, given.load_in_4bit) == (bits == "int8", bits == "int4")


class TestEnds:
    """The template's end of turn ends an answer, whatever `generation_config.json` lists."""

    @pytest.mark.parametrize("listed", [None, 2, [2, 3]])
    def test_beside_the_listed_ones(self, engine, listed):
        end = engine.processor.end_of_turn_id
        assert end is not None
        engine.model.generation_config.eos_token_id = listed
        assert engine.ends == sorted({end, *(listed if isinstance(listed, list) else [listed] if listed else [])})

    @pytest.mark.parametrize("way", ["answer", "batch", "stream", "events"])
    def test_in_every_way_to_an_answer(self, engine, picture, way):
        """A model whose head says nothing but the end of turn after the first tokens."""
        engine.model.generation_config.eos_token_id = 2
        end = engine.processor.end_of_turn_id
        calls = []

        def say_the_end(_module, _args, logits):
            calls.append(1)
            if len(calls) >= 3:
                logits = torch.full_like(logits, -100.0)
                logits[..., end] = 0.0
            return logits

        engine.model.lm_head.register_forward_hook(say_the_end)
        asked = conversation(picture, QUESTION)
        if way == "stream":
            "".join(engine.stream(asked, max_new_tokens=20))
        elif way == "events":
            *_, end = engine.events(asked, SamplingSettings(max_new_tokens=20))
            assert (end.reason, end.answer_tokens) == ("stop", 3)
        else:
            answers = engine.answer([asked] * (1 if way == "answer" else 3), max_new_tokens=20)
            assert {answer.finish_reason for answer in answers} == {"stop"}
            assert {answer.answer_tokens for answer in answers} == {3}
        assert len(calls) == 3


class TestMemory:
    def test_too_little_says_how_much_and_what_would_fit(self, monkeypatch, saved):
        monkeypatch.setattr(loading, "free_bytes", lambda device: free)
        config = loading.load_config(str(saved))
        sizes = {bits: quantization.weight_bytes(config, torch.float32, bits) for bits in (None, "int8")}
        free = sizes[None] - 1
        with pytest.raises(ValueError, match=r"takes 0.0 GB as float32, cpu has .* what would fit: dtype bfloat16"):
            FusionEngine.from_pretrained(saved, device="cpu")
        free = 10
        with pytest.raises(ValueError, match="no smaller form fits"):
            FusionEngine.from_pretrained(saved, device="cpu")
        free = sizes["int8"]
        assert FusionEngine.from_pretrained(saved, device="cpu", quantize="int8").model is not None


class TestDamagedFolders:
    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("config.json", b"null", "config.json holds NoneType, not a JSON object"),
            ("config.json", b"{", "config.json is not a JSON file"),
            ("config.json", None, "holds no config.json: it is not a model"),
            ("generation_config.json", b"[]", "generation_config.json holds list"),
            ("tokenizer.json", b"{}", "tokenizer.json is not a tokenizer: it has no 'model'"),
            ("tokenizer.json", b'{"model": {"type": "BPE"}}', "the tokenizer of .* cannot be read"),
            ("tokenizer.json", None, "holds no tokenizer"),
            ("model.safetensors", b"\x00" * 100, "model.safetensors is damaged or cut off"),
            ("model.safetensors", None, "holds no model.safetensors: its weights are not all there"),
            ("chat_template.jinja", b"{% for %}", "the chat template is broken"),
            ("chat_template.jinja", b"{{ messages[0].no.thing }}", "the chat template is broken"),
            ("processor_config.json", b"7", "processor_config.json holds int"),
        ],
    )
    @pytest.mark.parametrize("bits", [None, "int8"])
    def test_one_sentence(self, saved, name, content, reason, bits):
        if content is None:
            (saved / name).unlink()
        else:
            (saved / name).write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            FusionEngine.from_pretrained(saved, device="cpu", quantize=bits)

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "vocab.json"])
    def test_every_kind_of_tokenizer_is_one(self, tmp_path, name):
        with pytest.raises(ValueError, match="holds no tokenizer"):
            check_tokenizer(tmp_path)
        (tmp_path / name).write_text('{"model": {}}')
        check_tokenizer(tmp_path)

    def test_weights_cut_off(self, saved):
        whole = (saved / "model.safetensors").read_bytes()
        (saved / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="is damaged or cut off"):
            FusionEngine.from_pretrained(saved, device="cpu")

    @pytest.mark.parametrize("bits", [None, "int8"])
    def test_other_shapes_than_the_config_says(self, saved, bits):
        config = json.loads((saved / "config.json").read_text())
        config["text_config"]["intermediate_size"] = 64
        (saved / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"tensors have other shapes than its config\.json says"):
            FusionEngine.from_pretrained(saved, device="cpu", quantize=bits)

    def test_a_shard_is_missing(self, engine, tmp_path):
        engine.model.save_pretrained(tmp_path, max_shard_size="50KB")
        engine.processor.save_pretrained(tmp_path)
        shards = sorted(tmp_path.glob("*.safetensors"))
        assert len(shards) > 2
        shards[1].unlink()
        with pytest.raises(ValueError, match=f"holds no {shards[1].name}"):
            FusionEngine.from_pretrained(tmp_path, device="cpu")

    def test_a_released_config_without_its_keys(self, reference_dir, tmp_path):
        folder = shutil.copytree(reference_dir / "checkpoints" / "phi-siglip", tmp_path / "released")
        config = json.loads((folder / "config.json").read_text())
        config.pop("mm_vision_tower")
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="lacks mm_vision_tower"):
            loading.load_config(str(folder))

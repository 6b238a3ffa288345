import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read from /proc")


@pytest.fixture
def scripts(monkeypatch):
    """The modules of the rehearsal in this process."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("rehearsal"), importlib.import_module("released_folder")
    for name in set(sys.modules) - before:
        if str(SCRIPTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def rehearsal(scripts, monkeypatch):
    """The rehearsal, with a photograph that is quickly made."""
    monkeypatch.setattr(scripts[0], "PHOTO_SIZE", (40, 30))
    return scripts[0]


@pytest.fixture
def released(scripts):
    return scripts[1]


def test_tensors_are_those_of_the_reference_checkpoints(released, reference_dir):
    for preset, reference in {"3b": "phi-siglip", "8b": "llama-siglip", "x-8b": "llama-siglip2"}.items():
        with safe_open(reference_dir / "checkpoints" / reference / "model.safetensors", "pt") as tensors:
            expected = {re.sub(r"\d+", "N", name) for name in tensors.keys()}  # noqa: SIM118
        assert {re.sub(r"\d+", "N", name) for name in released.released_shapes(released.PRESETS[preset])} == expected


def test_config_has_the_keys_of_the_reference_checkpoints(released, reference_dir):
    for preset, reference in {"3b": "phi-siglip", "8b": "llama-siglip"}.items():
        expected = json.loads((reference_dir / "checkpoints" / reference / "config.json").read_text())
        assert expected.keys() - released.released_config(released.PRESETS[preset]).keys() <= {"pad_token_id"}


@pytest.mark.parametrize(("preset", "shards"), [("3b", 3), ("8b", 5), ("x-3b", 3), ("x-8b", 5)])
def test_full_sizes_are_the_released_ones(released, preset, shards):
    shapes = released.released_shapes(released.PRESETS[preset])  # refuses another number of parameters
    parts = released._in_shards(shapes, released.SHARD_BYTES)
    assert len(parts) == shards
    assert all(released.folder_bytes(part) <= released.SHARD_BYTES for part in parts)
    assert sorted(name for part in parts for name in part) == sorted(shapes)
    factors = released.released_config(released.PRESETS[preset])["rope_scaling"]
    assert all(len(factors.get(name, [0.0] * 48)) == 48 for name in ("short_factor", "long_factor"))


def test_tensors_survive_the_shards(released, tmp_path):
    preset = released.PRESETS["tiny"]
    shapes = released.released_shapes(preset)
    released.write_released_folder(preset, tmp_path / "tiny", shapes, shard_bytes=2_000_000)
    weight_map = json.loads((tmp_path / "tiny" / "model.safetensors.index.json").read_text())["weight_map"]
    assert weight_map.keys() == shapes.keys()
    for name, file in weight_map.items():
        with safe_open(tmp_path / "tiny" / file, "pt") as tensors:
            tensor = tensors.get_tensor(name)
        assert (str(tensor.dtype), tuple(tensor.shape)) == ("torch.bfloat16", shapes[name])
        fan_in = tensor[0].numel()
        if tensor.dim() > 1:
            assert tensor.float().std() == pytest.approx(fan_in**-0.5, rel=0.2), name
        else:
            assert set(tensor.tolist()) == {1.0 if name.endswith("weight") else 0.0}, name


@pytest.fixture(scope="module")
def tiny_run(run_script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rehearsal")
    result = run_script(
        "rehearsal.py", "--preset", "tiny", "--shard-bytes", "2000000", "--folder", str(folder), "--keep",
        "--questions", "2", "--new-tokens", "5", "--json", str(folder / "results.json"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result, json.loads((folder / "results.json").read_text()), folder / "tiny"


@pytest.mark.slow
@LINUX_ONLY
class TestTinyRun:
    def test_the_folder_is_as_on_the_hub(self, tiny_run):
        _, results, folder = tiny_run
        shards = sorted(path.name for path in folder.glob("*.safetensors"))
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert sorted(set(index["weight_map"].values())) == shards
        assert len(shards) == results["shards"] > 2
        assert (folder / "tokenizer.model").is_file()
        assert not (folder / "tokenizer.json").exists()
        for code in json.loads((folder / "config.json").read_text())["auto_map"].values():
            script = folder / f"{code.split('.')[0]}.py"
            ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
            assert "RuntimeError" in ran.stderr

    def test_it_was_loaded_and_answered(self, tiny_run):
        result, results, folder = tiny_run
        assert results["answer"]
        assert repr(results["answer"][:60]) in result.stdout
        assert [answer["tokens"] for answer in results["engine"]["answers"]] == [5, 5]
        assert f"kept: {folder}" in result.stderr

    def test_numbers_make_sense(self, tiny_run):
        _, results, _ = tiny_run
        assert 0 < results["engine"]["load_seconds"] < results["ask"]["seconds"]
        for answer in results["engine"]["answers"]:
            assert answer["first_token_seconds"] > 0
            assert answer["tokens_per_second"] > 0
        for process in ("ask", "engine"):
            peaks = results[process]["peak_bytes"]
            assert results["weights_bytes"] < max(peaks["own"], peaks["mapped"]) < peaks["peak"]
            # The kernel notes the peak; the two parts are looked at now and then, and may miss a little of it.
            assert peaks["peak"] <= peaks["own"] + peaks["mapped"] + 2**24


@LINUX_ONLY
class TestFolder:
    def failing(self, *arguments):
        raise subprocess.CalledProcessError(2, "fusionvl ask", "", "what went wrong")

    def test_is_removed_when_a_process_fails(self, rehearsal, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(rehearsal, "watch", self.failing)
        assert rehearsal.main(["--preset", "tiny", "--folder", str(tmp_path)]) == 1
        assert "what went wrong" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_that_was_kept_is_used_again(self, rehearsal, monkeypatch, tmp_path):
        monkeypatch.setattr(rehearsal, "watch", self.failing)
        keep = ["--preset", "tiny", "--folder", str(tmp_path), "--keep"]
        rehearsal.main(keep)
        before = (tmp_path / "tiny" / "config.json").stat().st_mtime_ns
        rehearsal.main(keep)
        assert (tmp_path / "tiny" / "config.json").stat().st_mtime_ns == before

    def test_of_somebody_else_is_left_alone(self, rehearsal, tmp_path, capsys):
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "diary.txt").write_text("dear diary")
        assert rehearsal.main(["--preset", "tiny", "--folder", str(tmp_path)]) == 2
        assert "not a whole folder of the preset tiny: remove it first" in capsys.readouterr().err
        assert (tmp_path / "tiny" / "diary.txt").read_text() == "dear diary"

    def test_is_not_begun_without_room_on_disk(self, rehearsal, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 10**9))
        assert rehearsal.main(["--preset", "3b", "--folder", str(tmp_path)]) == 2
        assert re.search(r"needs 10\.7 GB on disk .* has 1\.0 GB free", capsys.readouterr().err)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("flags", "needed"), [([], "12.7"), (["--quantize", "int4"], "5.6")])
    def test_is_not_begun_without_memory(self, rehearsal, monkeypatch, tmp_path, capsys, flags, needed):
        monkeypatch.setattr(rehearsal, "status_bytes", lambda path: {"MemAvailable": 2 * 10**9})
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 0, 2**40))
        assert rehearsal.main(["--preset", "3b", "--folder", str(tmp_path), *flags]) == 2
        assert f"{needed} GB of memory" in capsys.readouterr().err

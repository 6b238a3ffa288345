import errno
import json
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from endpoint import serving
from PIL import Image
from small_scenes import make_small_scene

from fusionvl.cli import main
from fusionvl.synth import run, text_endpoint
from fusionvl.synth.journal import Journal
from fusionvl.synth.kinds import KINDS
from fusionvl.synth.manifest import MANIFEST, read_manifest
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.recipe import SynthRecipe, dump_synth_recipe, load_synth_recipe
from fusionvl.synth.row_files import finished_rows, read_rows, shard_path, write_rows
from fusionvl.synth.rows import Row, SynthTurn

SCENES = {
    "name": "small",
    "rows": {"SynthColor": 7, "MultiChoice": 4},
    "describe": {"kind": "template"},
    "questions": {"kind": "template"},
    "images": {"kind": "procedural", "size": 16},
    "shard_size": 4,
}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes a recipe; scenes are the small ones."""
    monkeypatch.setattr(run, "make_scene", make_small_scene)

    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(SCENES | changes))
        return str(path)

    return write


def synth_run(recipe, folder, *options):
    return main(["synth", "run", recipe, *options, "--output", str(folder)])


def test_scenes_from_a_recipe(recipe, tmp_path, capsys):
    folder = tmp_path / "run"
    for share in ("0/2", "1/2"):
        assert synth_run(recipe(), folder, "--shard", share) == 0
    assert "ok in" in capsys.readouterr().out
    rows = list(finished_rows(folder))
    assert Counter(row.kind for row in rows) == SCENES["rows"]
    for row in rows:
        assert (row.status, row.attempts) == ("ok", 1)
        assert row.turns == (
            SynthTurn(f"Which color is it? ({row.kind})", row.turns[0].correct, None, row.turns[0].correct),
        )
        with Image.open(folder / row.image) as image:
            assert image.size == (16, 16)
    assert len({row.turns[0].correct for row in rows}) > 1
    manifest = read_manifest(folder)
    assert manifest["settings"]["rows"] == SCENES["rows"]
    assert manifest["versions"]["fusionvl"]


def test_other_rows_or_settings_are_refused(recipe, tmp_path, capsys):
    folder = tmp_path / "run"
    synth_run(recipe(), folder)
    assert synth_run(recipe(), folder, "concurrency=3") == 0  # decides nothing about rows
    assert synth_run(recipe(), folder, "seed=1", "--accept-changed-config") == 2
    assert "holds other rows (seed: 0 there, 1 here)" in capsys.readouterr().err
    assert synth_run(recipe(), folder, "images.size=32") == 2
    assert "images.size: 16 there, 32 here" in capsys.readouterr().err
    assert synth_run(recipe(), folder, "images.size=32", "--accept-changed-config") == 0
    manifest = read_manifest(folder)
    assert manifest["settings"]["images"]["size"] == 32
    assert manifest["accepted_changes"][0]["settings"]["images"]["size"] == 16
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    assert synth_run(recipe(), tmp_path / "other") == 2
    assert f"holds other files and no {MANIFEST}" in capsys.readouterr().err


def test_a_process_that_was_killed_at_the_manifest_keeps_nobody_from_the_folder(recipe, tmp_path):
    """Nor does one that is writing it at this moment: array jobs all begin at once."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f"{MANIFEST}.123.unfinished").write_text("{")
    assert synth_run(recipe(), folder) == 0
    assert len(list(finished_rows(folder))) == 11


def test_a_key_that_expires_stops_the_run_and_nothing_is_asked_twice(recipe, tmp_path, capsys):
    with serving(["good"] * 5 + [(401, {})]) as server:
        path = recipe(questions={"kind": "endpoint", "model": "m", "base_urls": [server.url]}, concurrency=1)
        assert synth_run(path, tmp_path / "run") == 2
        assert "refuses the key" in capsys.readouterr().err
        assert synth_run(path, tmp_path / "run") == 0
        assert len(server.requests) == 11 + 1
    assert {row.status for row in finished_rows(tmp_path / "run")} == {"ok"}


def test_an_endpoint_that_does_all_it_can_wrong_loses_no_row(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(text_endpoint, "_FIRST_PAUSE", 0.01)
    troubles = [(500, {}), (429, {"Retry-After": "0"}), (429, {}), "close mid-stream", "broken body", "empty choice"]
    draw = random.Random()
    script = [draw.choice([*troubles, "no choice", "hang", "Sure!", "good"]) for _ in range(20)]
    with serving([*script, (400, {})]) as server:
        asking = {"kind": "endpoint", "model": "m", "base_urls": [server.url], "timeout": 0.5, "retries": 2}
        path = recipe(questions=asking, fuse={"max_errors": 1.0, "max_rejected": 1.0})
        assert synth_run(path, tmp_path / "run") == 0
        first = {row.id: row for row in finished_rows(tmp_path / "run")}
        assert len(first) == 11
        assert all(row.reason for row in first.values() if row.status != "ok")
        server.script.clear()
        assert synth_run(path, tmp_path / "run", "--retry-errors") == 0
    again = {row.id: row for row in finished_rows(tmp_path / "run")}
    assert list(again) == list(first)
    assert all(again[name] == row for name, row in first.items() if row.status != "error")
    assert all(again[name].status == "ok" for name, row in first.items() if row.status == "error")


def test_a_share_in_which_all_goes_wrong_is_stopped(recipe, tmp_path, capsys):
    """Each share has 24 rows, fewer than the fuse looks back on by default."""
    with serving([(400, {})] * 24) as server:
        asking = {"kind": "endpoint", "model": "m", "base_urls": [server.url]}
        path = recipe(rows={"SynthColor": 48}, questions=asking)
        assert synth_run(path, tmp_path / "run", "--shard", "0/2") == 2
    assert "24 of the last 24 rows are error" in capsys.readouterr().err


def test_a_disk_that_is_full_when_an_image_is_written(recipe, tmp_path, capsys, monkeypatch):
    """The third image is cut off half way, as on a full disk."""
    whole, calls = Path.write_bytes, []

    def write(path, content):
        calls.append(path)
        if len(calls) == 3:
            whole(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    folder = tmp_path / "run"
    assert synth_run(recipe(concurrency=1), folder) == 2
    assert "No space left on device. Nothing is lost: free the disk and run again" in capsys.readouterr().err
    assert not list(folder.rglob("*.unfinished"))
    assert len(list(folder.rglob("*.jpg"))) == 2
    assert synth_run(recipe(concurrency=1), folder) == 0
    assert len(calls) == 3 + 9  # the two that were kept are not drawn again
    for row in finished_rows(folder):
        with Image.open(folder / row.image) as image:
            image.load()


def test_a_disk_that_is_full_when_a_shard_is_finished(recipe, tmp_path, capsys, monkeypatch):
    import pyarrow.parquet

    def write(_table, path):
        Path(path).write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet, "write_table", write)
        assert synth_run(recipe(), tmp_path / "run") == 2
    assert "free the disk and run again" in capsys.readouterr().err
    assert not list((tmp_path / "run").rglob("*.parquet*"))
    assert synth_run(recipe(), tmp_path / "run") == 0
    assert len(list(finished_rows(tmp_path / "run"))) == 11


def test_a_language_model_asks_about_scenes(recipe, tmp_path, capsys):
    with serving(['{"turns": []}', '{"turns": []}', (400, {})]) as server:
        price = {"input": 1e4, "output": 0.0}
        endpoint = {"kind": "endpoint", "model": "test-model", "base_urls": [server.url], "price": price}
        path = recipe(questions=endpoint, concurrency=1)
        assert synth_run(path, tmp_path / "run") == 0
        output = capsys.readouterr().out
        assert "9 ok, 1 errors, 1 rejected, 1,320 tokens, $11.00" in output
        assert "--retry-errors" in output
        rows = list(finished_rows(tmp_path / "run"))
        assert {row.status for row in rows if row.description and row.image} == {"ok", "error", "rejected"}
        assert synth_run(path, tmp_path / "run", "--retry-errors") == 0
        assert "10 ok, 1 rejected" in capsys.readouterr().out
    for row in finished_rows(tmp_path / "run"):
        if row.status == "ok":
            assert row.prompt_hashes["questions"].startswith(f"questions/{row.kind}.v1 ")
            assert row.models == {"scene": "procedural", "questions": "test-model"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imges": 1}, "imges"),
        ({"rows": {"SynthColour": 2}}, "no kind 'SynthColour'"),
        ({"captions": "a.txt"}, "scenes start from no caption"),
        ({"describe": {"kind": "endpoint", "model": "m"}}, "only a scene can be drawn procedurally"),
        (
            {"describe": {"kind": "endpoint", "model": "m"}, "images": {"kind": "diffusion", "model": "m"}},
            "templates only know scenes",
        ),
        (
            {
                "describe": {"kind": "endpoint", "model": "m"},
                "questions": {"kind": "endpoint", "model": "m"},
                "images": {"kind": "diffusion", "model": "m"},
            },
            "name a file of captions",
        ),
        ({"fuse": {"window": 0}}, "window must be at least 1"),
    ],
)
def test_recipes_that_cannot_be(recipe, tmp_path, capsys, changes, message):
    assert synth_run(recipe(**changes), tmp_path / "run") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("share", ["2/2", "x", "1", "-1/2"])
def test_shares_that_cannot_be(recipe, tmp_path, capsys, share):
    with pytest.raises(SystemExit):
        synth_run(recipe(), tmp_path / "run", f"--shard={share}")
    assert "must be I/N" in capsys.readouterr().err


def test_the_recipes_of_the_package_are_sound(tmp_path):
    scenes = load_synth_recipe("recipes/synth/scenes.yaml", ["split=held-out"])
    assert set(scenes.rows) == set(KINDS)
    assert scenes.split == "held-out"
    captions = load_synth_recipe("recipes/synth/captions.yaml")
    assert captions.questions == captions.describe
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_synth_recipe(captions))
    assert load_synth_recipe(path) == captions
    assert isinstance(captions, SynthRecipe)


def test_a_torn_last_line_is_cut_off_and_any_other_is_told(tmp_path):
    path = tmp_path / "part.jsonl"
    one, two = Row(id="1", kind="SynthColor"), Row(id="2", kind="SynthColor")
    path.write_text(f"{one.to_json()}\n{two.to_json()[:20]}")
    journal = Journal(path)
    journal.append(two)
    assert journal.rows() == {"1": one, "2": two}
    journal.close()
    path.write_text(f"{one.to_json()}\n{two.to_json()[:20]}\n{two.to_json()}\n")
    with pytest.raises(ValueError, match=r"part.jsonl, line 2: not a row .* remove that line"):
        Journal(path)


def test_rows_survive_parquet(tmp_path):
    rows = [
        Row(
            id="1", kind="MultiChoice", turns=(SynthTurn("q", "A", options=("x", "y"), correct="A"),), truth={"a": [1]}
        ),
        Row(id="2", kind="SynthColor", status="error", reason="не вышло", seeds={"describe": 2**31 - 1}),
    ]
    path = tmp_path / "part.parquet"
    write_rows(path, rows)
    assert read_rows(path) == rows
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is no finished shard"):
        read_rows(path)
    with pytest.raises(ValueError, match="has no finished shard"):
        list(finished_rows(tmp_path))
    assert not shard_path(tmp_path, 0).exists()


def test_own_prompts_replace_ours_and_are_told_apart(tmp_path):
    (tmp_path / "describe").mkdir()
    (tmp_path / "describe" / "SynthColor.v1.txt").write_text("Old.")
    (tmp_path / "describe" / "SynthColor.v12.txt").write_text("Describe $caption in $$ and $language.")
    ours, mixed = Prompts("French"), Prompts("French", tmp_path)
    prompt = mixed.of("describe", "SynthColor")
    assert prompt.name == "describe/SynthColor.v12"
    row = Row(id="1", kind="SynthColor", caption="$5 note")
    assert mixed.fill(prompt, row)[1] == ("user", "Describe $5 note in $ and French.")
    changed = {name for name, signature in mixed.hashes.items() if ours.hashes[name] != signature}
    assert changed == {"describe/SynthColor"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "describe/SynthColor.v1.txt",
            "Describe $captoin.",
            r"'captoin' cannot be filled in; a prompt may hold \$caption",
        ),
        ("describe/SynthColor.v1.txt", "It costs $5.", "cannot be filled in"),
        ("describe/SynthColour.v1.txt", "x", "holds describe/SynthColour; prompts are called"),
        ("describe/SynthColor.txt", "x", "a prompt is called NAME.v1.txt"),
    ],
)
def test_own_prompts_that_cannot_be(tmp_path, name, text, message):
    (tmp_path / "describe").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        Prompts("English", tmp_path)
    with pytest.raises(ValueError, match="holds no prompt"):
        Prompts("English", tmp_path / "none")


def test_every_prompt_shows_the_form_of_its_answer():
    """The example in a prompt has the very fields of the schema that the answer is checked by."""
    from fusionvl.synth.answers import QUESTIONS, description_answer

    prompts = Prompts("English")
    for kind in KINDS.values():
        asked = prompts.fill(prompts.of("describe", kind.name), Row(id="1", kind=kind.name))[1][1]
        shown = json.loads(asked[asked.rindex("form {") + 5 : -1])
        assert shown.keys() == description_answer(kind).model_fields.keys()
        asked = prompts.fill(prompts.of("questions", kind.name), Row(id="1", kind=kind.name))[1][1]
        shown = json.loads(asked[asked.rindex("form {") + 5 : -1])
        (turn,) = shown["turns"]
        turn_type = QUESTIONS[kind.name].model_fields["turns"].annotation.__args__[0]
        assert turn.keys() == turn_type.model_fields.keys()

import io
import random
import re
from collections import Counter

import openai
import pytest
import yaml
from endpoint import serving
from made_drawings import write_drawings
from PIL import Image

from fusionvl.cli import main
from fusionvl.run_folder import CannotWriteError, read_record
from fusionvl.synth import pictures, shard_files, text_endpoint
from fusionvl.synth.kinds import KINDS
from fusionvl.synth.pictures import as_jpeg
from fusionvl.synth.plan import what_is_missing
from fusionvl.synth.recipe import load_synth_recipe
from fusionvl.synth.rows import Row, SynthTurn
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.shard_files import ROW_SCHEMA, finished_rows, read_rows, write_records

SCENES = {
    "name": "small",
    "rows": {"SynthColor": 7, "MultiChoice": 4},
    "describe": {"kind": "template"},
    "questions": {"kind": "template"},
    "images": {"kind": "procedural", "size": 64},
    "shard_size": 4,
}


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe."""

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
        assert synth_run(recipe(split="held-out"), folder, "--shard", share) == 0
    assert "ok in" in capsys.readouterr().out
    rows = list(finished_rows(folder))
    assert Counter(row.kind for row in rows) == SCENES["rows"]
    for row in rows:
        sample = scene_sample(row.kind, int(row.id, 16), split="held-out")
        assert (row.status, row.attempts, row.models) == ("ok", 1, {"scene": "procedural"})
        assert (row.turns, row.description) == (sample.turns, sample.description)
        with Image.open(folder / row.image) as image, Image.open(io.BytesIO(as_jpeg(sample.draw(64)))) as drawn:
            assert image.tobytes() == drawn.tobytes()
    record = read_record(folder)
    assert record["settings"]["rows"] == SCENES["rows"]
    assert record["versions"]["fusionvl"]


def test_drawn_things_are_drawn_by_the_artists_that_are_named(recipe, tmp_path, capsys):
    folder, drawings = tmp_path / "run", write_drawings(tmp_path / "drawings")
    images = {"kind": "procedural", "size": 64, "drawings": str(drawings), "artists": ["b"]}
    changes = {"rows": {"DrawnThing": 2, "DrawnCount": 2}, "images": images}
    assert synth_run(recipe(**changes), folder) == 0
    for row in finished_rows(folder):
        sample = scene_sample(row.kind, int(row.id, 16))
        expected = as_jpeg(sample.draw(64, Drawings(drawings, ["b"])))
        assert (folder / row.image).read_bytes() == expected
        assert row.turns == sample.turns
    drawings.rename(tmp_path / "elsewhere").with_name("drawings").mkdir()
    moved = (tmp_path / "elsewhere").rename(drawings / "drawings")
    assert synth_run(recipe(**changes), folder, f"images.drawings={moved}") == 0
    assert synth_run(recipe(**changes), folder, f"images.drawings={moved}", "images.artists=[a]") == 2
    assert "artists" in capsys.readouterr().err
    (moved / "b" / "7.svg").write_text("another drawing")
    assert synth_run(recipe(**changes), folder, f"images.drawings={moved}") == 2
    assert "drawings_fingerprint" in capsys.readouterr().err


def test_rows_whose_drawing_is_broken_are_kept_with_the_reason(recipe, tmp_path):
    drawings = write_drawings(tmp_path / "drawings")
    for svg in drawings.glob("b/*.svg"):
        svg.write_text("<svg")
    images = {"kind": "procedural", "size": 64, "drawings": str(drawings), "artists": ["b"]}
    synth_run(recipe(rows={"DrawnThing": 2}, images=images), tmp_path / "run")
    rows = list(finished_rows(tmp_path / "run"))
    assert [row.status for row in rows] == ["error", "error"]
    assert all(re.search(r"The drawing .*svg cannot be read: .* Fetch the drawings again", row.reason) for row in rows)


def test_a_run_depends_on_the_prompts_that_it_uses_and_no_others(recipe, tmp_path, capsys):
    synth_run(recipe(), tmp_path / "scenes")
    assert read_record(tmp_path / "scenes")["settings"]["prompt_hashes"] == {}
    (tmp_path / "own" / "questions").mkdir(parents=True)
    with serving() as server:
        asking = {"kind": "endpoint", "model": "m", "base_urls": [server.url]}
        assert synth_run(recipe(questions=asking), tmp_path / "asked") == 0
        used = read_record(tmp_path / "asked")["settings"]["prompt_hashes"]
        assert set(used) == {"questions/SynthColor", "questions/MultiChoice"}
        (tmp_path / "own" / "questions" / "MultiChoice.v1.txt").write_text("Ask about: $description")
        assert synth_run(recipe(questions=asking, prompts=str(tmp_path / "own")), tmp_path / "asked") == 2
    assert "prompt_hashes.questions/MultiChoice" in capsys.readouterr().err


def test_what_a_kill_left_half_written_is_removed(recipe, tmp_path):
    folder = tmp_path / "run"
    assert synth_run(recipe(), folder) == 0
    made = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    (folder / "shards" / "part-00000.parquet").unlink()
    for name in ("shards/part-00000.parquet.ab12.unfinished", "images/00000/some.jpg.cd34.unfinished"):
        (folder / name).write_bytes(b"half")
    assert synth_run(recipe(), folder) == 0
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == made


def test_other_rows_or_settings_are_refused(recipe, tmp_path, capsys):
    folder = tmp_path / "run"
    synth_run(recipe(), folder)
    assert synth_run(recipe(), folder, "concurrency=3") == 0  # decides nothing about rows
    assert synth_run(recipe(), folder, "seed=1", "--accept-changed-config") == 2
    assert "holds other rows (seed: 0 there, 1 here)" in capsys.readouterr().err
    assert synth_run(recipe(), folder, "images.size=80") == 2
    assert "images.size: 64 there, 80 here" in capsys.readouterr().err
    assert synth_run(recipe(), folder, "images.size=80", "--accept-changed-config") == 0
    record = read_record(folder)
    assert record["settings"]["images"]["size"] == 80
    assert record["accepted_changes"][0]["settings"]["images"]["size"] == 64
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    assert synth_run(recipe(), tmp_path / "other") == 2
    assert "holds results and no run.json" in capsys.readouterr().err


def test_a_process_that_was_killed_at_the_record_keeps_nobody_from_the_folder(recipe, tmp_path):
    """Nor does one that is writing it at this moment: array jobs all begin at once."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json.x7.unfinished").write_text("{")
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
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
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
    whole, calls = pictures.write_whole, []

    def write(path, content):
        calls.append(path)
        if len(calls) == 3:
            raise CannotWriteError(f"{path} could not be written: No space left on device")
        whole(path, content)

    monkeypatch.setattr(pictures, "write_whole", write)
    folder = tmp_path / "run"
    assert synth_run(recipe(concurrency=1), folder) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert len(list(folder.rglob("*.jpg"))) == 2
    assert synth_run(recipe(concurrency=1), folder) == 0
    assert len(calls) == 3 + 9  # the two that were kept are not drawn again
    for row in finished_rows(folder):
        with Image.open(folder / row.image) as image:
            image.load()


def test_a_disk_that_is_full_when_a_shard_is_finished(recipe, tmp_path, capsys, monkeypatch):
    def write(path, _content):
        raise CannotWriteError(f"{path} could not be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shard_files, "write_whole", write)
        assert synth_run(recipe(), tmp_path / "run") == 2
    assert "part-00000.parquet could not be written" in capsys.readouterr().err
    assert what_is_missing(tmp_path / "run") == "0 of 11 rows; 3 shards unfinished"
    assert synth_run(recipe(), tmp_path / "run") == 0
    assert len(list(finished_rows(tmp_path / "run"))) == 11
    assert what_is_missing(tmp_path / "run") is None


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
        (
            {"rows": {"SynthColor": 1, "ConvQuiz": 1}, "questions": {"kind": "endpoint", "model": "m"}},
            "ConvQuiz: only a scene can be asked about in this way",
        ),
        (
            {"rows": {"SynthColor": 1, "DrawnNames": 1}},
            "DrawnNames: what artists have drawn is shown there: fetch it with python scripts/fetch_drawings.py",
        ),
        (
            {"rows": {"DrawnThing": 1}, "images": {"kind": "procedural", "drawings": "nowhere"}},
            "There are no drawings in nowhere: no nowhere/index.json. Fetch them with python scripts/",
        ),
        ({"images": {"kind": "procedural", "size": 10}}, "size must be from 64 to 1024 pixels, not 10"),
    ],
)
def test_recipes_that_cannot_be(recipe, tmp_path, capsys, changes, message):
    assert synth_run(recipe(**changes), tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", ["2/2", "x", "1", "-1/2"])
def test_shares_that_cannot_be(recipe, tmp_path, capsys, share):
    with pytest.raises(SystemExit):
        synth_run(recipe(), tmp_path / "run", f"--shard={share}")
    assert "must be I/N" in capsys.readouterr().err


def test_the_recipes_of_the_package_are_sound():
    scenes = load_synth_recipe("recipes/synth/scenes.yaml", ["split=held-out"])
    assert set(scenes.rows) == {name for name, kind in KINDS.items() if kind.asked}
    assert scenes.split == "held-out"
    captions = load_synth_recipe("recipes/synth/captions.yaml")
    assert captions.questions == captions.describe
    drawn = load_synth_recipe("recipes/synth/drawn.yaml", ["images.artists=[openmoji]"])
    assert set(drawn.rows) == {name for name, kind in KINDS.items() if kind.needs_drawings}
    assert drawn.images.artists == ["openmoji"]


def test_rows_survive_parquet(tmp_path):
    rows = [
        Row(
            id="1", kind="MultiChoice", turns=(SynthTurn("q", "A", options=("x", "y"), correct="A"),), truth={"a": [1]}
        ),
        Row(id="2", kind="SynthColor", status="error", reason="не вышло", seeds={"describe": 2**31 - 1}),
    ]
    path = tmp_path / "part.parquet"
    write_records(path, [row.to_dict() for row in rows], ROW_SCHEMA)
    assert read_rows(path) == rows
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is no finished shard"):
        read_rows(path)
    with pytest.raises(ValueError, match="has no finished shard"):
        list(finished_rows(tmp_path))

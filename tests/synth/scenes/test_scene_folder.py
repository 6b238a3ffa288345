"""A folder of scenes: readable as a mixture, resumable, the same with any number of processes."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from fusionvl import cli
from fusionvl.data.mixture import open_mixture
from fusionvl.data.verification import verify_mixture
from fusionvl.synth.scenes import scene_sample
from fusionvl.synth.scenes.contact_sheet import contact_sheet, folder_sheet
from fusionvl.synth.scenes.kinds import KINDS as TWELVE
from fusionvl.synth.scenes.kinds import OWN_KINDS
from fusionvl.synth.scenes.scene_folder import write_scenes

KINDS = ("SynthCount", "ContrastShort", "TextQA")


@pytest.fixture
def folder(tmp_path):
    write_scenes(tmp_path / "scenes", 3, kinds=KINDS, size=64)
    return tmp_path / "scenes"


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".fusionvl-index" not in path.parts
    }


def test_every_row_of_the_mixture_is_sound(folder):
    mixture = open_mixture(folder / "mixture.yaml", seed=0)
    report = verify_mixture(mixture)
    assert (len(mixture), report.corrupt) == (9, 0)
    first = mixture.parts[0].source.read(1, epoch=0, seed=0)
    expected = scene_sample("SynthCount", 1)
    assert (first.id, first.turns) == (expected.id, expected.turns)
    with Image.open(first.image) as image:
        assert image.tobytes() == expected.draw(64).tobytes()


def test_the_marker_is_in_the_first_question_alone(folder):
    for record in json.loads((folder / "SynthCount.json").read_text()):
        values = [turn["value"] for turn in record["conversations"]]
        assert values[0].startswith("<image>\n")
        assert not any("<image>" in value for value in values[1:])


def test_started_again_it_draws_only_what_is_missing(folder):
    before = files(folder)
    missing, kept = (folder / "images" / "TextQA" / "0000" / f"{n:07d}.png" for n in (2, 1))
    missing.unlink()
    (folder / "TextQA.json").unlink()
    kept.write_bytes(b"not drawn again")
    write_scenes(folder, 3, kinds=["TextQA"], size=64)
    assert kept.read_bytes() == b"not drawn again"
    assert files(folder) == {**before, kept.relative_to(folder).as_posix(): b"not drawn again"}


def test_more_can_be_added(folder):
    before = files(folder)
    write_scenes(folder, 4, kinds=["TextQA"], size=64)
    write_scenes(folder, 1, kinds=["Reasoning"], size=64)
    after = files(folder)
    assert len(json.loads(after["TextQA.json"])) == 4
    assert len(open_mixture(folder / "mixture.yaml", seed=0)) == 3 + 3 + 4 + 1
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"TextQA.json", "mixture.yaml"}


def test_kinds_that_are_not_the_papers_are_drawn_when_asked_for(tmp_path):
    own = list(OWN_KINDS)
    write_scenes(tmp_path, 1, kinds=own, size=64)
    write_scenes(tmp_path, 1, size=64)
    parts = [
        part.source.read(0, epoch=0, seed=0).source for part in open_mixture(tmp_path / "mixture.yaml", seed=0).parts
    ]
    assert parts == [*TWELVE, *own]


def test_processes_make_no_difference(folder, tmp_path):
    write_scenes(tmp_path / "parallel", 3, kinds=KINDS, size=64, processes=2)
    assert files(tmp_path / "parallel") == files(folder)


@pytest.mark.parametrize("other", [{"size": 96}, {"seed": 1}, {"split": "held-out"}])
def test_a_folder_belongs_to_its_settings(folder, other):
    before = files(folder)
    with pytest.raises(ValueError, match="choose another folder"):
        write_scenes(folder, 3, kinds=KINDS, **{"size": 64, **other})
    assert files(folder) == before


WRITER = """
import sys
from dataclasses import asdict
from pathlib import Path
from fusionvl.synth.scenes.scene_folder import SceneSettings
from fusionvl.synth.settled_folder import claimed
with claimed(Path(sys.argv[1]), "scenes.json", asdict(SceneSettings(64, 0, "train")), "scenes"):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_write_into_one_folder(folder, capsys):
    before = files(folder)
    command = [sys.executable, "-c", WRITER, str(folder)]
    again = ["synth", "scenes", str(folder), "--count", "4", "--size", "64", "--kinds", "TextQA"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "writing\n"
        assert cli.main(again) == 2
        assert "another process is writing scenes into" in capsys.readouterr().err
        assert files(folder) == before
        other.kill()
    assert cli.main(again) == 0  # the lock of a dead process holds nobody up


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds other files"):
        write_scenes(tmp_path, 1, kinds=["TextQA"], size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"count": 0}, "at least 1"),
        ({"count": 1, "processes": 0}, "at least 1"),
        ({"count": 1, "kinds": ["Smell"]}, "no kind 'Smell'"),
        ({"count": 1, "kinds": ["TextQA", "TextQA"]}, "different names"),
        ({"count": 1, "kinds": []}, "none"),
        ({"count": 1, "size": 20}, "not at 20"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        write_scenes(tmp_path / "scenes", **arguments)
    assert not (tmp_path / "scenes").exists()


def test_a_sheet_shows_samples_of_every_kind(folder):
    sheet = folder_sheet(folder, each=2, columns=3)
    assert sheet.width > 3 * 256
    assert sheet.height > 2 * 256
    with Image.open(folder / "images" / "SynthCount" / "0000" / "0000000.png") as first:
        drawn = first.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
    assert sheet.crop((10, 10, 266, 266)).tobytes() == drawn.tobytes()


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        contact_sheet([])

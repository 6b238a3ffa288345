"""The datasheet, and the whole way to it by commands."""

from dataclasses import replace

from PIL import Image

from fusionvl.cli import main
from fusionvl.data.mixture import open_mixture
from fusionvl.synth.datasheet import write_datasheet
from fusionvl.synth.rows import SynthTurn


def test_the_whole_way_by_commands(runs, capsys):
    rows = runs.rows(24)
    rows[0] = replace(rows[0], turns=(SynthTurn("According to the caption, who is there?", "a dog"),))
    Image.new("RGB", (128, 128)).save(runs.folder / rows[3].image)
    rows[5] = rows[5].rejected("broken JSON twice")
    folder = str(runs.write(rows))
    assert main(["synth", "filter", folder]) == 0
    said = capsys.readouterr()
    assert "rules: 23 ok" in said.out
    assert "Warning" not in said.err
    caps = ["--cap", "letters=off", "--cap", "answers=off"]
    assert main(["synth", "select", folder, *caps, "--best", "image_contrast=0.9"]) == 0
    said = capsys.readouterr().out
    assert "19 of 23 rows kept" in said
    assert "2  best image_contrast" in said
    for form in ("llava", "parquet", "tar"):
        assert main(["synth", "export", folder, "--format", form]) == 0
        assert len(open_mixture(runs.folder / f"export-{form}" / "mixture.yaml", seed=0)) == 19
    assert main(["synth", "inspect", folder]) == 0
    said = capsys.readouterr().out
    words = [" ".join(line.replace("|", " ").split()) for line in said.splitlines()]
    for line in (
        "24 rows, 23 of them sound, with 45 questions and 23 images. The selection keeps 19.",
        "1 rejected broken JSON twice",
        "rule_leakage most 0 1",
        "best image_contrast share of each kind 0.9 2",
        "image_contrast least 4 1",
        "scene drawn 24",
        "MultiChoice 11 1 0 9",
        "SynthCount 12 0 0 10",
    ):
        assert line in words, said
    assert "not finished" not in said
    sheet = runs.folder / "datasheet"
    assert "![examples](examples.png)" in (sheet / "datasheet.md").read_text()
    for name in ("kinds", "lengths", "answers", "examples"):
        with Image.open(sheet / f"{name}.png") as image:
            assert min(image.size) > 100
    assert main(["synth", "measure-filters", folder, "--each", "2", "--filters", "rules", "images"]) == 0
    assert "precision" in capsys.readouterr().out


def test_datasheet_of_a_run_that_nothing_was_asked_about_yet(runs):
    rows = runs.rows(2)
    folder = runs.write(rows, shards=1)
    text = write_datasheet(folder, folder / "sheet")
    assert "2 rows, 2 of them sound, with 4 questions and 2 images. Nothing is selected yet." in text
    assert "`fusionvl synth filter DIR`" in text
    assert "once the filter `balance` has named them" in text
    for row in rows:
        (folder / row.image).unlink()
    assert "No image of a chosen row can be opened" in write_datasheet(folder, folder / "sheet")


def test_lengths_are_of_the_chosen_rows(runs):
    turns = [SynthTurn("Who?", "x" * 10), SynthTurn("Where is it?", "x" * 30)]
    rows = [replace(row, turns=tuple(turns), kind="ConvShort") for row in runs.rows(2)]
    other = replace(runs.rows(3)[2], kind="ConvShort").failed("x" * 9)
    folder = runs.write([*rows, other])
    lines = [" ".join(line.replace("|", " ").split()) for line in write_datasheet(folder, folder / "s").splitlines()]
    assert "ConvShort 2.0 8 20 30" in lines
    assert "ConvShort 2 0 1 2" in lines

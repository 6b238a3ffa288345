"""A sheet shows the rows of a run with their conversations."""

import pytest
from PIL import Image

from fusionvl.cli import main
from fusionvl.synth.contact_sheet import contact_sheet, examples
from fusionvl.synth.recipe import Procedural, SynthRecipe, Template
from fusionvl.synth.rows import Row
from fusionvl.synth.run import synthesize
from fusionvl.synth.shard_files import finished_rows


def test_a_sheet_shows_rows_of_every_kind_in_the_recipes_order(tmp_path):
    rows = {"TextQA": 3, "SynthLayout": 1, "ContrastShort": 2}
    synthesize(SynthRecipe("sheet", rows, Template(), Template(), Procedural(size=64)), tmp_path)
    assert main(["synth", "sheet", str(tmp_path), "--each", "2", "--columns", "3"]) == 0
    first = next(row for row in finished_rows(tmp_path) if row.kind == "TextQA")
    with Image.open(tmp_path / first.image) as image, Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 3 * (256 + 10) + 10
        assert sheet.height > 2 * 256
        drawn = image.resize((256, 256), Image.Resampling.LANCZOS)
        assert sheet.crop((10, 10, 266, 266)).tobytes() == drawn.tobytes()


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one sound row"):
        contact_sheet([])


def test_examples_are_the_first_rows_of_each_kind_whose_image_opens(tmp_path):
    def rows():
        for name in ("a1", "a2", "b1", "a3", "b2", "c1", "a4"):
            read.append(name)
            yield Row(name, name[0].upper(), image=f"{name}.png")

    read = []
    for name in ("a2", "a3", "b1", "b2", "c1", "a4"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "a1.png").write_bytes(b"broken")
    found = examples(tmp_path, rows(), {"B": 2, "A": 4, "D": 0}, each=2)
    assert [row.id for row, _ in found] == ["b1", "b2", "a2", "a3"]
    assert read[-1] == "b2", "no more is read than is taken"

"""A share of the pictures is held out: by what is in them, and whatever stands around them."""

import numpy as np
import pytest

from fusionvl.data.mixture import open_mixture
from fusionvl.data.picture_split import split_by_picture


def records(files, count, *, folder="", turns=1, start=0):
    """Records about pictures of different colours, two about each."""
    (files.folder / folder).mkdir(exist_ok=True)
    made = []
    for n in range(start, start + count):
        name = f"{folder}{n}.png"
        (files.folder / name).write_bytes(files.png((n % 256, n // 256, 7)))
        made += [files.record(f"{n}-{question}", image=name, turns=turns) for question in "ab"]
    return made


def opened(files, made, name="a.json", seed=0):
    return open_mixture(files.llava(name, 0, records=made), seed=seed)


def contents(mixture):
    samples = [mixture.read(mixture.order.at(position)) for position in range(len(mixture))]
    return {sample.image.read_bytes() for sample in samples}, {sample.id for sample in samples}


def test_about_the_share_is_held_out_and_no_picture_is_on_both_sides(files):
    mixture = opened(files, records(files, 400))
    kept, held_out = split_by_picture(mixture, 0.2)
    assert len(kept) + len(held_out) == len(mixture) == 800
    assert 100 < len(held_out) < 220
    (own, own_ids), (others, other_ids) = contents(kept), contents(held_out)
    assert not own & others
    assert own_ids | other_ids == contents(mixture)[1]
    assert kept.fingerprint != held_out.fingerprint != mixture.fingerprint
    rows = np.arange(len(kept))
    assert kept.shapes(rows).has_image.all()
    assert kept.shapes(rows).characters.sum() + held_out.shapes(np.arange(len(held_out))).characters.sum() == (
        mixture.shapes(np.arange(800)).characters.sum()
    )


def test_names_seeds_questions_and_other_pictures_make_no_difference(files):
    first = split_by_picture(opened(files, records(files, 60)), 0.3)
    renamed = records(files, 90, folder="other/", turns=2)
    second = split_by_picture(opened(files, renamed, name="b.json", seed=5), 0.3)
    assert contents(first[0])[0] < contents(second[0])[0]
    assert contents(first[1])[0] < contents(second[1])[0]


def test_rows_without_a_picture_go_by_their_question(files):
    made = [files.record(n) for n in range(100)] + [files.record(n) for n in range(100)]
    kept, held_out = split_by_picture(opened(files, made), 0.3)
    questions = [
        {mixture.read(mixture.order.at(position)).turns[0].question for position in range(len(mixture))}
        for mixture in (kept, held_out)
    ]
    assert not questions[0] & questions[1]
    assert len(questions[0] | questions[1]) == 100


def test_what_a_mixture_selects_and_weighs_stays(files):
    files.llava("a.json", 0, records=records(files, 50))
    files.llava("b.json", 0, records=records(files, 50, start=50))
    entries = [
        {"json_path": str(files.folder / "a.json"), "weight": 1, "sampling_strategy": "first:40"},
        {"json_path": str(files.folder / "b.json"), "weight": 3},
    ]
    kept, held_out = split_by_picture(open_mixture({"datasets": entries}, seed=0), 0.25)
    assert len(kept) + len(held_out) == 40 + 100
    assert [part.weight for part in kept.parts] == [1, 3]
    drawn = [kept.order.at(position).source for position in range(400)]
    assert drawn.count(1) == pytest.approx(300, abs=20)


def test_a_missing_picture_is_told_with_its_row(files):
    made = records(files, 20)
    for name in ("3.png", "7.png"):
        (files.folder / name).unlink()
    with pytest.raises(
        ValueError, match=r"4 of 40 rows cannot be used.*the first: a, row 6 \(id 'id-3-a'\): .*3\.png"
    ):
        split_by_picture(opened(files, made), 0.5)


@pytest.mark.parametrize(("share", "words"), [(1e-9, "holds nothing out"), (1 - 1e-9, "holds everything out")])
def test_a_side_without_rows_is_refused(files, share, words):
    with pytest.raises(ValueError, match=f"{words} of 8 rows"):
        split_by_picture(opened(files, records(files, 4)), share)

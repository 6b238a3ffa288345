"""Where image tokens, latent groups and question ends stand, whatever the padding; and what is refused."""

import pytest
import torch

from fusionvl.model.token_layout import read_layout

IMAGE = [1, 1, 1]
LATENT = [2, 2, 2, 2]


def layout_of(*rows):
    return read_layout(torch.tensor(rows), num_image_tokens=3)


QUESTION = [0, *IMAGE, 0, *LATENT, 0, 3]  # image at 1..3, latents at 5..8, end at 10


@pytest.mark.parametrize(
    ("left", "right"), [(0, 0), (0, 4), (4, 0), (2, 2)], ids=["flush", "right padded", "left padded", "both"]
)
def test_one_question(left, right):
    layout = layout_of([0] * left + QUESTION + [0] * right)
    assert layout.image_positions.tolist() == [[left + position for position in (1, 2, 3)]]
    assert layout.latent_positions.tolist() == [[left + position for position in (5, 6, 7, 8)]]
    assert layout.question_ends.tolist() == [left + 10]
    assert layout.image_of_question.tolist() == [0]
    assert (layout.num_latents, layout.latent_side) == (4, 2)


def test_groups_at_both_borders_of_a_row():
    layout = layout_of([*LATENT, 3, *IMAGE], [*IMAGE, 3, *LATENT])
    assert layout.latent_positions.tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert layout.image_positions.tolist() == [[5, 6, 7], [8, 9, 10]]
    assert layout.question_ends.tolist() == [4, 11]


def test_rows_differ_in_padding_turns_and_images():
    """Left padding and right padding in one batch, two turns, a row of text between; flattened row length 18."""
    layout = layout_of(
        [0] * 7 + QUESTION,
        [0] * 18,
        [*QUESTION, 0, *LATENT, 0, 3],
    )
    assert layout.image_positions.tolist() == [[8, 9, 10], [37, 38, 39]]
    assert layout.latent_positions.tolist() == [[12, 13, 14, 15], [41, 42, 43, 44], [48, 49, 50, 51]]
    assert layout.question_ends.tolist() == [17, 46, 53]
    assert layout.image_of_question.tolist() == [0, 1, 1]


def test_ends_belong_to_groups_in_order():
    layout = layout_of([*IMAGE, 2, 3, 2, 3, 2, 3])
    assert (layout.num_latents, layout.latent_side) == (1, 1)
    assert layout.latent_positions.tolist() == [[3], [5], [7]]
    assert layout.question_ends.tolist() == [4, 6, 8]


def test_images_without_latents():
    layout = layout_of([*IMAGE, 0, 3], [0, 0, 0, 0, 3])
    assert layout.image_positions.tolist() == [[0, 1, 2]]
    assert layout.num_latents == 0
    assert layout.question_ends.numel() == 0


def test_question_ends_of_text_only_rows_are_no_questions_to_an_image():
    layout = layout_of([0] * 10 + [3], QUESTION)
    assert layout.question_ends.tolist() == [21]


def test_text_alone():
    layout = layout_of([0, 0, 0])
    assert layout.image_positions.shape == (0, 3)
    assert layout.latent_positions.numel() == layout.question_ends.numel() == layout.image_of_question.numel() == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 1, 0, 0]], "Image features and image tokens do not match: row 0 holds 2 image tokens, .* makes 3"),
        ([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]], "row 1 holds 6 image tokens"),
        ([[*IMAGE, 2, 2, 2, 3]], "must be a perfect square, not 3"),
        ([[*IMAGE, 2, 3, *LATENT, 3]], r"same number of latent tokens, found \[1, 4\]"),
        ([[*IMAGE, *LATENT, 3], [*IMAGE, 2, 3, 0, 0, 0]], r"same number of latent tokens, found \[4, 1\]"),
        ([[*IMAGE, *LATENT, 0]], r"rows \[0\] hold a group each, rows \[\] hold a question end each"),
        ([[*IMAGE, *LATENT, 3, 3]], r"rows \[0\] hold a group each, rows \[0, 0\] hold a question end each"),
        ([[*IMAGE, 2, 3, 0], [*IMAGE, 2, 0, 0]], r"rows \[0, 1\] hold a group each, rows \[0\] hold"),
        ([[*IMAGE, 2, 3, 3], [*IMAGE, 2, 0, 0]], r"rows \[0, 1\] hold a group each, rows \[0, 0\] hold"),
        ([[0, *LATENT, 3]], "latent tokens but no image tokens"),
        ([[*IMAGE, 2, 3], [0, 0, 0, 2, 3]], "latent tokens but no image tokens"),
        ([[0, 0, 0, 2, 3], [*IMAGE, 2, 3]], "latent tokens but no image tokens"),
    ],
)
def test_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        layout_of(*rows)

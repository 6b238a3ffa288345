"""What a training run's data loader gets: one process's forward passes, and the conversations of their rows."""

import json

import pytest
from PIL import Image, ImageOps

from fusionvl.data.mixture import open_mixture
from fusionvl.processing import FusionCollator
from fusionvl.train.config import LearningRates, MixtureData, StageConfig
from fusionvl.train.dataset import MixtureConversations, NamingCollator, RowOfStep
from fusionvl.train.starting_point import starting_point

LATENTS = [1, 4]


@pytest.fixture
def processor(recipe):
    return starting_point(recipe)[1]


@pytest.fixture
def conversations(tmp_path, processor):
    """Of rows with images, in a stage of the given options."""
    image = Image.linear_gradient("L").convert("RGB").rotate(30)
    image.save(tmp_path / "image.png")
    turns = [{"from": "human", "value": "what is it?"}, {"from": "gpt", "value": "a circle"}]
    records = [{"id": f"id-{number}", "image": "image.png", "conversations": turns} for number in range(200)]
    (tmp_path / "rows.json").write_text(json.dumps(records))
    description = {"datasets": [{"json_path": str(tmp_path / "rows.json")}]}

    def made(**data):
        stage = StageConfig(
            name="1",
            data=MixtureData(datasets=description["datasets"], **data),
            max_steps=6,
            batch_size=2,
            learning_rates=LearningRates(1.0, 1.0, 1.0, 1.0),
            num_latents=LATENTS,
        )
        return MixtureConversations(open_mixture(description, seed=0), processor, stage, tmp_path / "quarantine.jsonl")

    return made


def passes(conversations, first_step=0, rank=0, processes=1):
    sampler = conversations.batches(2, 6, num_steps=6, first_step=first_step, rank=rank, processes=processes)
    found = list(sampler)
    assert len(sampler) == len(found)
    return found


def test_the_rest_of_the_passes_is_the_same_from_any_step(conversations):
    whole = passes(conversations())
    assert len(whole) == 36
    assert passes(conversations(), first_step=4) == whole[24:]
    assert passes(conversations(), first_step=6) == []
    assert len({row.position for each in whole for row in each}) == 72


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_any_number_of_processes_shares_the_same_passes(conversations, processes):
    shares = [passes(conversations(), 1, rank, processes) for rank in range(processes)]
    assert {len(share) for share in shares} == {30 // processes}
    alone, each = passes(conversations(), 1), 6 // processes
    for step in range(5):
        together = [one for share in shares for one in share[step * each : (step + 1) * each]]
        assert sorted(together) == sorted(alone[6 * step : 6 * (step + 1)])


def test_a_step_has_one_number_of_latents_in_all_processes(conversations):
    shares = [passes(conversations(), rank=rank, processes=6) for rank in range(6)]
    drawn = [{row.num_latents for share in shares for row in share[step]} for step in range(6)]
    assert all(len(counts) == 1 for counts in drawn)
    assert set.union(*drawn) == set(LATENTS)


def test_rows_keep_their_latents_and_names_in_a_batch(conversations, processor):
    data = conversations()
    collate = NamingCollator(FusionCollator(processor, num_latents=LATENTS, blank_images=True))
    for latents in LATENTS:
        batch = collate([data[RowOfStep(position, latents)] for position in range(2)])
        assert (batch["mm_token_type_ids"] == 2).sum() == 2 * latents
        assert [name.partition(" ")[0] for name in batch["rows"]] == ["rows", "rows"]


def test_images_are_mirrored_by_position_alone(conversations):
    plain, mirrored = conversations(), conversations(mirror=True)
    turned = 0
    for position in range(40):
        row = RowOfStep(position, 1)
        image, found = plain[row]["image"], mirrored[row]["image"]
        assert found == mirrored[row]["image"]
        assert found in (image, ImageOps.mirror(image))
        turned += found != image
    assert 10 <= turned <= 30

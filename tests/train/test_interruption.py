"""Runs that end early: they go on to the same log and weights, or say in one sentence what is to be done."""

import resource
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from fusionvl import cli
from fusionvl.train import run
from fusionvl.train.checkpoints import (
    check_room_for_checkpoints,
    checkpoint_size,
    checkpoints,
    last_complete_checkpoint,
)
from fusionvl.train.dataset import GroupedPositions, open_data
from fusionvl.train.disk import UNFINISHED


@pytest.fixture
def one_stage(recipe):
    return replace(recipe, stages=recipe.stages[:1])


@contextmanager
def small_files(size):
    """No file may grow beyond a size: what happens on writing is what happens on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestGoingOn:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_to_the_same_log_and_weights(self, tmp_path, recipe, train_until, assert_same, workers):
        recipe = replace(recipe, data_workers=workers)
        recipe.model.decoder["attention_dropout"] = 0.3  # so that random numbers matter, too
        run.train(recipe, tmp_path / "whole")
        train_until(recipe, tmp_path / "killed", "2", steps=3)
        assert not (tmp_path / "killed" / "model").exists()
        run.train(recipe, tmp_path / "killed")
        assert_same(tmp_path / "whole", tmp_path / "killed")

    def test_from_a_stage_whose_model_was_not_written(self, tmp_path, one_stage, assert_same):
        run.train(one_stage, tmp_path / "whole")
        shutil.copytree(tmp_path / "whole", tmp_path / "killed")
        shutil.rmtree(tmp_path / "killed" / "stage-1" / "model")
        shutil.rmtree(tmp_path / "killed" / "model")
        run.train(one_stage, tmp_path / "killed")
        assert_same(tmp_path / "whole", tmp_path / "killed")

    def test_not_from_a_half_written_checkpoint(self, tmp_path, one_stage, assert_same):
        run.train(one_stage, tmp_path / "whole")
        shutil.copytree(tmp_path / "whole", tmp_path / "torn")
        stage = tmp_path / "torn" / "stage-1"
        shutil.rmtree(stage / "model")
        (stage / UNFINISHED).mkdir()
        (stage / "checkpoint-4").rename(stage / UNFINISHED / "checkpoint-4")
        (stage / UNFINISHED / "checkpoint-4" / "state" / ".metadata").write_bytes(b"half")
        run.train(one_stage, tmp_path / "torn")
        assert_same(tmp_path / "whole", tmp_path / "torn")
        assert not (stage / UNFINISHED).exists()

    def test_after_a_log_line_that_a_kill_cut_short(self, tmp_path, one_stage, train_until, assert_same):
        run.train(one_stage, tmp_path / "whole")
        train_until(one_stage, tmp_path / "killed", "1", steps=3)
        with (tmp_path / "killed" / "metrics.jsonl").open("a") as log:
            log.write('{"stage": "1", "st')
        run.train(one_stage, tmp_path / "killed")
        assert_same(tmp_path / "whole", tmp_path / "killed")

    def test_two_checkpoints_are_kept(self, tmp_path, one_stage):
        one_stage.stages[0].max_steps = 5
        run.train(replace(one_stage, save_every=1), tmp_path)
        kept = sorted(path.name for path in (tmp_path / "stage-1").glob("checkpoint-*"))
        assert kept == ["checkpoint-4", "checkpoint-5"]
        assert last_complete_checkpoint(tmp_path / "stage-1").name == "checkpoint-5"

    def test_log_lines_that_a_resumed_run_could_not_write_are_refused(self, recipe):
        with pytest.raises(ValueError, match=r"save_every \(2\) must be a multiple of log_every \(3\)"):
            replace(recipe, log_every=3)


class TestFullDisk:
    def test_the_last_checkpoint_is_kept_and_the_same_command_goes_on(self, tmp_path, one_stage, assert_same):
        run.train(one_stage, tmp_path / "whole")
        shutil.copytree(tmp_path / "whole", tmp_path / "full")
        stage = tmp_path / "full" / "stage-1"
        size = (stage / "checkpoint-4" / "state" / "__0_0.distcp").stat().st_size
        for name in ("model", "checkpoint-4"):
            shutil.rmtree(stage / name)
        told = (
            r"checkpoint-4 could not be written: .* MB free\. Make room .* goes on from .*checkpoint-2, which is whole"
        )
        with small_files(size - 1), pytest.raises(ValueError, match=told):
            run.train(one_stage, tmp_path / "full")
        assert checkpoints(stage) == [stage / "checkpoint-2"]
        assert not (stage / UNFINISHED).exists()
        run.train(one_stage, tmp_path / "full")
        assert_same(tmp_path / "whole", tmp_path / "full")

    def test_the_log(self, tmp_path, recipe_text, capsys):
        (tmp_path / "tiny.yaml").write_text(recipe_text)
        arguments = ["train", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out")]
        with small_files(10_000):  # more than the recipe, less than a tokenizer
            assert cli.main(arguments) == 2
        told = capsys.readouterr().err
        assert "could not be written: File too large" in told
        assert "the stage goes on from its start" in told

    def test_a_stage_whose_checkpoints_do_not_fit_does_not_begin(self, tmp_path):
        enormous = torch.nn.Linear(10**9, 10**6, device="meta")
        check_room_for_checkpoints(enormous, tmp_path, to_come=0)
        with pytest.raises(ValueError, match=r"will take about 12,000,\S* MB more, and only \S* MB are"):
            check_room_for_checkpoints(enormous, tmp_path, to_come=1)

    def test_the_expected_size_is_near_the_written(self, tmp_path, one_stage):
        run.train(one_stage, tmp_path)
        checkpoint = tmp_path / "stage-1" / "checkpoint-4"
        written = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        model = run.load_model(str(tmp_path / "stage-1" / "model"), torch.float32)
        around_tensors = (
            4 * 4096 * len(list(model.parameters()))
        )  # weight, two moments and step; little for large ones
        assert checkpoint_size(model) <= written <= checkpoint_size(model) + around_tensors


class TestNotFinite:
    def test_a_loss_names_the_rows_of_its_batch(self, tmp_path, one_stage):
        one_stage.stages[0].learning_rates.decoder = float("inf")
        mixture = open_data(one_stage.stages[0].data, one_stage.seed)
        second_batch = list(GroupedPositions(mixture, batch_size=2, accumulation=1, num_steps=4))[1]
        rows = [mixture.read(mixture.order.at(position)) for position in second_batch]
        with pytest.raises(ValueError, match=r"Stage 1, step 2: the loss is not finite \(lm_loss nan") as raised:
            run.train(one_stage, tmp_path)
        assert str(raised.value).endswith(", ".join(f"{row.source} {row.id!r}" for row in rows))

    def test_a_gradient_names_the_rows_of_all_forward_passes(self, tmp_path, one_stage, monkeypatch):
        one_stage.stages[0].gradient_accumulation = 2
        rows = []

        class SpoiledTrainer(run.FusionTrainer):
            def compute_loss(self, model, inputs, *args, **kwargs):
                rows.append(inputs["rows"])
                if self.state.global_step == 1:
                    model.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
                return super().compute_loss(model, inputs, *args, **kwargs)

        monkeypatch.setattr(run, "FusionTrainer", SpoiledTrainer)
        with pytest.raises(ValueError, match="step 2: the loss is finite, the gradient is not") as raised:
            run.train(one_stage, tmp_path)
        assert len(rows) == 4
        assert str(raised.value).endswith(", ".join(rows[2] + rows[3]))

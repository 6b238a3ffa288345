"""Runs that end early: they go on to the same log and weights, or say in one sentence what is to be done."""

import shutil
from dataclasses import replace

import pytest

from fusionvl import cli
from fusionvl.run_folder import UNFINISHED
from fusionvl.train import run, training_loop
from fusionvl.train.checkpoints import checkpoints
from fusionvl.train.training_loop import TrainingLoop


@pytest.fixture
def one_stage(recipe):
    return replace(recipe, stages=recipe.stages[:1])


class TestGoingOn:
    @pytest.mark.parametrize(("workers", "optimizer"), [(0, "adamw"), (1, "adamw"), (0, "muon")])
    def test_to_the_same_log_and_weights(self, tmp_path, recipe, train_until, assert_same, workers, optimizer):
        stages = [replace(stage, optimizer=optimizer, weight_decay=0.1) for stage in recipe.stages]
        recipe = replace(recipe, data_workers=workers, stages=stages)
        recipe.model.decoder["attention_dropout"] = 0.3  # so that random numbers matter, too
        run.train(recipe, tmp_path / "whole")
        train_until(recipe, tmp_path / "killed", "2", steps=3)
        assert not (tmp_path / "killed" / "model").exists()
        run.train(recipe, tmp_path / "killed")
        assert_same(tmp_path / "whole", tmp_path / "killed")

    def test_from_a_stage_whose_model_was_not_written(self, tmp_path, one_stage, assert_same, monkeypatch):
        run.train(one_stage, tmp_path / "whole")
        shutil.copytree(tmp_path / "whole", tmp_path / "killed")
        shutil.rmtree(tmp_path / "killed" / "stage-1" / "model")
        shutil.rmtree(tmp_path / "killed" / "model")
        monkeypatch.setattr(TrainingLoop, "_take", None)  # there is no step left
        run.train(one_stage, tmp_path / "killed")
        assert_same(tmp_path / "whole", tmp_path / "killed")

    def test_not_from_a_half_written_checkpoint(self, tmp_path, one_stage, assert_same):
        run.train(one_stage, tmp_path / "whole")
        shutil.copytree(tmp_path / "whole", tmp_path / "torn")
        stage = tmp_path / "torn" / "stage-1"
        shutil.rmtree(stage / "model")
        torn = (stage / "checkpoint-4").rename(stage / f"checkpoint-4.{UNFINISHED}")
        (torn / ".metadata").write_bytes(b"half")
        run.train(one_stage, tmp_path / "torn")
        assert_same(tmp_path / "whole", tmp_path / "torn")
        assert not list(stage.glob(f"*{UNFINISHED}*"))

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
        assert [path.name for path in checkpoints(tmp_path / "stage-1")] == ["checkpoint-4", "checkpoint-5"]


class TestFullDisk:
    def test_the_last_checkpoint_is_kept_and_the_same_command_goes_on(
        self, tmp_path, one_stage, assert_same, small_files
    ):
        run.train(one_stage, tmp_path / "whole")
        shutil.copytree(tmp_path / "whole", tmp_path / "full")
        stage = tmp_path / "full" / "stage-1"
        size = (stage / "checkpoint-4" / "__0_0.distcp").stat().st_size
        for name in ("model", "checkpoint-4"):
            shutil.rmtree(stage / name)
        told = r"checkpoint-4 could not be written: .* MB free\. Make room and start the same command again"
        with small_files(size - 1), pytest.raises(ValueError, match=told):
            run.train(one_stage, tmp_path / "full")
        assert checkpoints(stage) == [stage / "checkpoint-2"]
        assert not list(stage.glob(f"*{UNFINISHED}*"))
        run.train(one_stage, tmp_path / "full")
        assert_same(tmp_path / "whole", tmp_path / "full")

    def test_on_the_command_line(self, tmp_path, recipe_text, capsys, small_files):
        (tmp_path / "tiny.yaml").write_text(recipe_text)
        arguments = ["train", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out")]
        with small_files(10_000):  # more than the recipe, less than a tokenizer
            assert cli.main(arguments) == 2
        assert "could not be written: File too large" in capsys.readouterr().err


class TestNotFinite:
    @pytest.fixture
    def rows(self, monkeypatch):
        """What each step is given, by name."""
        rows, take = [], TrainingLoop._take

        def watch(self, step, batches):
            rows.append([row for batch in batches for row in batch["rows"]])
            return take(self, step, batches)

        monkeypatch.setattr(TrainingLoop, "_take", watch)
        return rows

    def test_a_loss_names_the_rows_of_its_batch(self, tmp_path, one_stage, rows):
        one_stage.stages[0].learning_rates.decoder = float("inf")  # a recipe that was read would be refused
        with pytest.raises(ValueError, match=r"Stage 1, step 2: the loss is not finite \(lm_loss nan") as raised:
            run.train(one_stage, tmp_path)
        assert str(raised.value).endswith(", ".join(rows[1]))

    def test_a_gradient_names_the_rows_of_all_forward_passes(self, tmp_path, one_stage, rows, monkeypatch):
        one_stage.stages[0].gradient_accumulation = 2
        compute_loss = TrainingLoop._loss

        def spoiled(self, step, batch, shares):
            if step == 2:
                self.model.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
            return compute_loss(self, step, batch, shares)

        monkeypatch.setattr(TrainingLoop, "_loss", spoiled)
        with pytest.raises(ValueError, match="step 2: the loss is finite, the gradient is not") as raised:
            run.train(one_stage, tmp_path)
        assert len(rows[1]) == 4
        assert str(raised.value).endswith(", ".join(rows[1]))

    def test_weights_of_the_last_step_are_no_result(self, tmp_path, recipe_text, capsys, monkeypatch):
        """No loss is computed after the last step that would tell."""

        def overflown(optimizers, factor):
            optimizers[0].param_groups[0]["params"][0].data.fill_(float("inf"))

        monkeypatch.setattr(training_loop, "take_step", overflown)
        arguments = [
            str(tmp_path / "tiny.yaml"),
            "--output",
            str(tmp_path / "out"),
            "stages.max_steps=1",
            "held_out=null",
        ]
        (tmp_path / "tiny.yaml").write_text(recipe_text)
        assert cli.main(["train", *arguments]) == 2
        told = capsys.readouterr()
        assert "Training ended with weights that are not finite, model." in told.err
        assert "trained model is in" not in told.out
        assert not (tmp_path / "out" / "stage-1" / "model").exists()

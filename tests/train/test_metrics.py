"""The run's log: whole lines only, each step once, and a plot of it."""

import pytest
from PIL import Image

from fusionvl.run_folder import read_rows, write_rows
from fusionvl.train.metrics import TIMED, StageLog, plot_metrics
from fusionvl.train.run import train


def line(stage, step, **values):
    return {"stage": stage, "step": step, **values}


def rows(path):
    return list(read_rows(path, dict))


def test_steps_that_will_run_again_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = [line("1", 2, loss=1.0), line("2", 1, loss=0.5)]
    write_rows(path, [kept[0], line("1", 3, loss=0.9), kept[1], line("1", 4, loss=0.8)])
    path.open("a").write('{"stage": "1", "st')  # the rest was lost in a kill
    with StageLog(tmp_path, "1", 2, []) as log:
        assert rows(path) == kept
        log.add(3, {"loss": 0.7}, [{"answer": "red"}])
    assert rows(path) == [*kept, line("1", 3, loss=0.7)]
    assert rows(tmp_path / "samples.jsonl") == [line("1", 3, answer="red")]


def test_two_runs_do_not_write_one_log(tmp_path):
    with StageLog(tmp_path, "1", 0, []), pytest.raises(ValueError, match=r"Another process writes .*metrics\.jsonl"):
        StageLog(tmp_path, "1", 0, [])


def pixels(path):
    return Image.open(path).convert("L").getcolors(maxcolors=1 << 20)


def test_the_plot_shows_what_was_measured(tmp_path):
    path = tmp_path / "metrics.jsonl"
    plot_metrics(path)
    assert not path.with_suffix(".png").exists(), "nothing was measured"
    measured = [line("1", step, lm_loss=1 / step, text_mapping_loss=0.5, grad_norm=1.0) for step in range(1, 6)]
    write_rows(path, measured)
    plot_metrics(path)
    loss_only = Image.open(path.with_suffix(".png")).size
    write_rows(path, [*measured, line("1.5", 5, held_out_accuracy=0.5)])
    plot_metrics(path)
    assert Image.open(path.with_suffix(".png")).size[1] > loss_only[1], "one more panel"
    assert len(pixels(path.with_suffix(".png"))) > 10
    both = Image.open(path.with_suffix(".png")).size
    write_rows(path, [*measured, line("1.5", 5, **{"held_out_accuracy/one": 0.5, "held_out_accuracy/other": 0.25})])
    plot_metrics(path)
    assert Image.open(path.with_suffix(".png")).size[1] == both[1], "of each data set, too"


def test_a_run_leaves_log_plot_and_tracker(tmp_path, recipe):
    train(recipe, tmp_path / "out")
    lines = rows(tmp_path / "out" / "metrics.jsonl")
    steps = [(each["stage"], each["step"]) for each in lines if "loss" in each]
    assert steps == [(stage, step) for stage in ("1", "2") for step in (1, 2, 3, 4)]
    for each in lines:
        if "loss" in each:
            total = each["lm_loss"] + 0.1 * (each["text_mapping_loss"] + each["vision_mapping_loss"])
            assert abs(each["loss"] - total) < 1e-3
            assert each["grad_norm"] > 0
            assert all(each[name] > 0 for name in TIMED)
            assert 0 <= each["padding"] < 1
    assert Image.open(tmp_path / "out" / "metrics.png").size[0] > 500
    assert list((tmp_path / "out" / "stage-2").rglob("events.out.tfevents.*"))

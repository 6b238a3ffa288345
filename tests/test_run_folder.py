"""A run on disk: whole files, folders claimed for their settings, rows that outlast their writer."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusionvl import run_folder
from fusionvl.run_folder import (
    UNFINISHED,
    CannotWriteError,
    RowFile,
    claim,
    fingerprint,
    read_record,
    read_rows,
    write_rows,
    write_whole,
    writing,
    written_whole,
)

# --- Whole or not at all ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; only who may mount one can run these tests."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def write_text(path):
    path.write_text("x" * 2_000_000)


def write_safetensors(path):
    save_file({"weights": torch.zeros(500_000)}, path)


def write_torch(path):
    torch.save({"weights": torch.zeros(500_000)}, path)


@pytest.mark.parametrize("write", [write_text, write_safetensors, write_torch])
class TestFullDisk:
    def test_real(self, small_disk, write):
        with written_whole(small_disk / "kept") as folder:
            (folder / "file").write_text("old")
        with (
            pytest.raises(CannotWriteError, match=r"kept could not be written: .*, [0-9.]+ MB free"),
            written_whole(small_disk / "kept") as folder,
        ):
            write(folder / "file")
        assert (small_disk / "kept" / "file").read_text() == "old"
        assert os.listdir(small_disk) == ["kept"], "what was half written takes no room"

    def test_limited_file_size(self, tmp_path, write, small_files):
        with (
            small_files(1_000_000),
            pytest.raises(CannotWriteError, match="new could not be written"),
            written_whole(tmp_path / "new") as folder,
        ):
            write(folder / "file")
        assert os.listdir(tmp_path) == []


def test_a_device_that_is_full():
    with (
        pytest.raises(CannotWriteError, match=rf"log could .*: {os.strerror(errno.ENOSPC)}"),
        writing(Path("log")),
        open("/dev/full", "a") as log,
    ):
        log.write("line\n")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), FileNotFoundError("no file"), ValueError("value")])
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as raised, written_whole(tmp_path / "new"):
        raise error
    assert raised.value is error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_is_a_file_is_told_in_one_sentence(tmp_path, place):
    (tmp_path / "file").write_text("precious")
    for write in (
        lambda: claim(tmp_path / place, {}, is_begun=False),
        lambda: RowFile(tmp_path / place / "rows.jsonl"),
        lambda: write_whole(tmp_path / place / "report.json", "{}"),
    ):
        with pytest.raises(CannotWriteError, match=r"cannot be written: .*Choose another place"):
            write()
    assert (tmp_path / "file").read_text() == "precious"


def test_a_file_is_replaced_whole(tmp_path, small_files):
    path = tmp_path / "new folder" / "recipe.yaml"
    write_whole(path, "old")
    with small_files(3), pytest.raises(CannotWriteError, match=r"recipe\.yaml could not be written"):
        write_whole(path, "new and longer")
    assert path.read_text() == "old"
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["recipe.yaml"]
    assert path.stat().st_mode & 0o777 == 0o644, "others of the machine may read it"


def test_writers_that_share_a_process_id_do_not_meet_in_one_file(tmp_path, monkeypatch):
    """As in two containers over one folder: the second writes while the first is in the middle."""
    path = tmp_path / "run.json"
    flush = os.fsync

    def second_writer(descriptor):
        flush(descriptor)
        monkeypatch.setattr(os, "fsync", flush)
        write_whole(path, "second")

    monkeypatch.setattr(os, "fsync", second_writer)
    write_whole(path, "the first")
    assert path.read_text() == "the first"
    assert os.listdir(tmp_path) == ["run.json"]


def test_nothing_stands_under_the_name_before_the_end(tmp_path):
    with written_whole(tmp_path / "model") as folder:
        (folder / "weights").write_text("new")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "weights").read_text() == "new"


def test_folders_side_by_side_are_written_at_once(tmp_path):
    with written_whole(tmp_path / "one") as first, written_whole(tmp_path / "two") as second:
        (first / "file").write_text("1")
        (second / "file").write_text("2")
    assert [(tmp_path / name / "file").read_text() for name in ("one", "two")] == ["1", "2"]


def test_what_a_kill_left_behind_is_removed(tmp_path):
    left = tmp_path / f"checkpoint-4.{UNFINISHED}"
    left.mkdir()
    (left / "weights").write_text("half")
    with written_whole(tmp_path / "checkpoint-4") as folder:
        assert os.listdir(folder) == []
    assert os.listdir(tmp_path) == ["checkpoint-4"]
    left.mkdir()
    (tmp_path / f"run.json.x1.{UNFINISHED}").write_text("half")
    run_folder.forget_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint-4"]


def test_discarding(tmp_path):
    with written_whole(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")
    run_folder.discard(tmp_path / "model")
    assert os.listdir(tmp_path) == []


# --- A folder for its settings ---


def test_a_folder_says_what_its_run_depends_on(tmp_path):
    claim(tmp_path / "out", {"seed": 1, "sizes": (1, 2)}, told={"model": "tiny"}, packages=["torch"], is_begun=False)
    record = read_record(tmp_path / "out")
    assert (record["settings"], record["model"]) == ({"seed": 1, "sizes": [1, 2]}, "tiny")
    assert record["versions"].keys() == {"torch", "python"}
    assert {"begun", "commit"} < record.keys()


def test_the_same_run_goes_on_and_another_is_refused_setting_by_setting(tmp_path):
    settings = {"seed": 1, "model": {"width": 8}, "sizes": (1, 2)}
    claim(tmp_path, settings, is_begun=False)
    record = (tmp_path / "run.json").read_text()
    claim(tmp_path, settings, is_begun=True)
    with pytest.raises(ValueError, match=r"other settings \(model\.width: 8 there, 9 here; new: None there, 1 here\)"):
        claim(tmp_path, {**settings, "model": {"width": 9}, "new": 1}, is_begun=True)
    assert (tmp_path / "run.json").read_text() == record


def test_a_run_that_never_began_leaves_the_folder_to_the_corrected_command(tmp_path):
    claim(tmp_path, {"seed": 1}, is_begun=False)
    claim(tmp_path, {"seed": 2}, is_begun=False)
    assert read_record(tmp_path)["settings"] == {"seed": 2}


def test_results_that_nobody_claimed_are_left_alone(tmp_path):
    with pytest.raises(ValueError, match=r"holds results and no run\.json: choose another --output"):
        claim(tmp_path, {"seed": 1}, is_begun=True)
    assert os.listdir(tmp_path) == []


def claim_at_once(folder, seed, barrier, outcomes):
    barrier.wait()
    try:
        claim(folder, {"seed": seed}, is_begun=(folder / "run.json").exists())
        outcomes.put((seed, None))
    except ValueError as error:
        outcomes.put((seed, str(error)))


def test_one_of_several_processes_writes_the_record(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, outcomes = context.Barrier(4), context.Queue()
    processes = [context.Process(target=claim_at_once, args=(tmp_path, 1, barrier, outcomes)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [outcomes.get(timeout=60) for _ in processes] == [(1, None)] * 4
    for process in processes:
        process.join()
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize(
    ("content", "said"), [("{", "is not JSON"), ("[]", "holds no settings"), ('{"settings": 1}', "holds no settings")]
)
def test_a_record_that_is_none(tmp_path, content, said):
    with pytest.raises(ValueError, match=r"is no folder of a run: it has no run\.json"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        read_record(tmp_path)


def test_a_fingerprint_is_of_contents(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    os.utime(two, (0, 0))
    assert fingerprint(one) == fingerprint(two) == fingerprint(b"same")
    two.write_bytes(b"sane")
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
    assert fingerprint("a", "bc") != fingerprint("ab", "c")
    assert fingerprint("a lone surrogate \ud800") != fingerprint("a lone surrogate ?")


# --- Rows as they are done ---


def values(path):
    return list(read_rows(path, dict))


def test_rows_are_there_as_soon_as_they_are_appended(tmp_path):
    path = tmp_path / "new folder" / "rows.jsonl"
    assert values(path) == []
    with RowFile(path) as rows:
        rows.append({"id": 1, "text": "Zürich \ud800"}, {"id": 2})
        assert values(path) == [{"id": 1, "text": "Zürich \ud800"}, {"id": 2}]
    with RowFile(path) as rows:
        rows.append({"id": 3})
    assert [row["id"] for row in values(path)] == [1, 2, 3]
    write_rows(path, [{"id": 4}])
    assert values(path) == [{"id": 4}]


@pytest.mark.parametrize("torn", ['{"id": 2, "te', '{"id": 2}', "x" * 200_000])
def test_a_line_that_a_kill_cut_short_is_cut_off(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n' + torn)
    assert values(path) == [{"id": 1}]
    with RowFile(path) as rows:
        rows.append({"id": 3})
    assert path.read_text() == '{"id": 1}\n{"id": 3}\n'


def test_a_file_has_one_writer(tmp_path):
    path = tmp_path / "rows.jsonl"
    with RowFile(path) as rows:
        rows.append({"id": 1})
        with pytest.raises(ValueError, match=r"Another process writes .*rows\.jsonl"):
            RowFile(path)
    with RowFile(path) as rows:
        rows.append({"id": 2})
    assert [row["id"] for row in values(path)] == [1, 2]


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"id": "x"}', '{"other": 1}'])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: .*Remove that line"):
        list(read_rows(path, lambda row: int(row["id"])))


def test_a_full_disk_while_rows_are_appended(tmp_path, small_files):
    path = tmp_path / "rows.jsonl"
    with RowFile(path) as rows:
        rows.append({"id": 1})
        for _ in range(2):  # several tasks may try before all stop
            with small_files(20), pytest.raises(CannotWriteError, match=r"rows\.jsonl could not be written"):
                rows.append({"id": 2, "text": "x" * 100})
            assert path.read_text() == '{"id": 1}\n'
        rows.append({"id": 4})
    with RowFile(path) as rows:
        rows.append({"id": 3})
    assert [row["id"] for row in values(path)] == [1, 4, 3]


# --- kill -9 ---

WRITER = """
import os, signal, sys
from pathlib import Path
from fusionvl.run_folder import RowFile, claim, read_rows, write_whole, written_whole

folder, left = Path(sys.argv[1]), int(sys.argv[2])

def hook(event, arguments):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.link") and str(folder) in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
claim(folder, {"seed": 1}, is_begun=(folder / "rows.jsonl").exists())
done = [row["id"] for row in read_rows(folder / "rows.jsonl", dict)]
with RowFile(folder / "rows.jsonl") as rows:
    for number in range(len(done), 12):
        with written_whole(folder / f"part-{number}") as part:
            (part / "one").write_text(str(number))
            (part / "two").write_text(str(number))
        write_whole(folder / "latest.json", str(number) * 50)
        rows.append({"id": number})
"""


def write_until(folder, operations):
    command = [sys.executable, "-c", WRITER, str(folder), str(operations)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, timeout=120, check=False).returncode


def test_killed_at_any_file_operation(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    moments = [random.Random(seed).randrange(1, 60) for _ in range(8)]
    print(f"seed {seed}: killed at file operations {moments}")
    ends = []
    for moment in moments:
        ends.append(write_until(tmp_path, moment))
        for part in tmp_path.glob("part-*[0-9]"):
            assert (part / "one").read_text() == (part / "two").read_text() == part.name.removeprefix("part-")
        latest = tmp_path / "latest.json"
        assert not latest.exists() or latest.read_text() in [str(number) * 50 for number in range(12)]
        kept = [row["id"] for row in values(tmp_path / "rows.jsonl")]
        assert kept == list(range(len(kept)))
    assert -signal.SIGKILL in ends
    assert write_until(tmp_path, 0) == 0
    assert [row["id"] for row in values(tmp_path / "rows.jsonl")] == list(range(12))
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == {"seed": 1}
    assert len(list(tmp_path.glob("part-*[0-9]"))) == 12

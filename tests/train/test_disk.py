"""Files and folders appear whole or not at all; a disk that is full is told in one sentence."""

import errno
import os
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusionvl.train import disk


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


@contextmanager
def small_files(size):
    """No file may grow beyond a size: what happens on writing is what happens on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_text(path):
    path.write_text("x" * 2_000_000)


def write_safetensors(path):
    save_file({"weights": torch.zeros(500_000)}, path)


def write_torch(path):
    torch.save({"weights": torch.zeros(500_000)}, path)


@pytest.mark.parametrize("write", [write_text, write_safetensors, write_torch])
class TestFullDisk:
    def test_real(self, small_disk, write):
        with disk.written_whole(small_disk / "kept") as folder:
            (folder / "file").write_text("old")
        with (
            pytest.raises(disk.CannotWriteError, match=r"kept could not be written: .*, [0-9.]+ MB free"),
            disk.written_whole(small_disk / "kept") as folder,
        ):
            write(folder / "file")
        assert (small_disk / "kept" / "file").read_text() == "old"
        assert os.listdir(small_disk) == ["kept"], "what was half written takes no room"

    def test_limited_file_size(self, tmp_path, write):
        with (
            small_files(1_000_000),
            pytest.raises(disk.CannotWriteError, match="new could not be written"),
            disk.written_whole(tmp_path / "new") as folder,
        ):
            write(folder / "file")
        assert os.listdir(tmp_path) == []


def test_a_device_that_is_full():
    with (
        pytest.raises(disk.CannotWriteError, match=rf"log could .*: {os.strerror(errno.ENOSPC)}"),
        disk.writing(Path("log")),
        open("/dev/full", "a") as log,
    ):
        log.write("line\n")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), FileNotFoundError("no file"), ValueError("value")])
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as raised, disk.written_whole(tmp_path / "new"):
        raise error
    assert raised.value is error
    assert os.listdir(tmp_path) == []


def test_a_text_file_is_replaced_whole(tmp_path):
    path = tmp_path / "recipe.yaml"
    disk.write_text(path, "old")
    with small_files(3), pytest.raises(disk.CannotWriteError, match=r"recipe\.yaml could not be written"):
        disk.write_text(path, "new and longer")
    assert path.read_text() == "old"
    disk.write_text(path, "new")
    assert path.read_text() == "new"


def test_nothing_stands_under_the_name_before_the_end(tmp_path):
    with disk.written_whole(tmp_path / "model") as folder:
        (folder / "weights").write_text("new")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "weights").read_text() == "new"


def test_what_a_kill_left_behind_is_removed(tmp_path):
    (tmp_path / disk.UNFINISHED / "checkpoint-4").mkdir(parents=True)
    (tmp_path / disk.UNFINISHED / "checkpoint-4" / "weights").write_text("half")
    with disk.written_whole(tmp_path / "checkpoint-4") as folder:
        assert os.listdir(folder) == []
    assert os.listdir(tmp_path) == ["checkpoint-4"]


def test_discarding(tmp_path):
    with disk.written_whole(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")
    disk.discard(tmp_path / "model")
    disk.forget_unfinished(tmp_path)
    assert os.listdir(tmp_path) == []

"""What a result was made with."""

import subprocess

import fusionvl
from fusionvl.provenance import commit_of, setting_differences, versions_of


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_of_a_checkout(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("one = 1\n")
    assert commit_of(file) is None, "no checkout"
    git(tmp_path, "init", "-q")
    assert commit_of(file) is None, "a checkout of something else"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    head = commit_of(file)
    assert len(head) == 40
    file.write_text("one = 2\n")
    assert commit_of(file) == f"{head}+changes"


def test_versions():
    versions = versions_of(["fusionvl", "no-such-package"])
    assert versions.keys() == {"fusionvl", "no-such-package", "python"}
    assert (versions["fusionvl"], versions["no-such-package"]) == (fusionvl.__version__, None)


def test_differences_are_named_by_their_path():
    theirs = {"seed": 0, "model": {"width": 8, "depth": 2}, "old": 1}
    ours = {"seed": 0, "model": {"width": 9, "depth": 2}, "new": None}
    assert setting_differences(theirs, ours) == {"model.width": (8, 9), "old": (1, None)}

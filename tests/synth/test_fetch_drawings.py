"""`scripts/fetch_drawings.py` writes what may be used, of packages in the shapes that artists' sets have."""

import importlib.util
import io
import json
import tarfile
from pathlib import Path

import pytest

from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.scenes.drawn_things import DrawnThing, characters

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_drawings.py"
CODES = {f"{ord(shown):04x}": name for name, drawn in characters().items() for shown in drawn}
ICONS = {name.replace(" ", "-"): {"body": f'<circle id="{name}" r="4"/>'} for name in characters()}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fetch_drawings", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Thousands of files are not flushed one by one: no power cut is tested here."""
    monkeypatch.setattr("fusionvl.run_folder.os.fsync", lambda descriptor: None)


def pack(folder, artist, version="1.2.3", **changed):
    """A package in the shape of npm's; a file that is changed to None is left out."""
    files = {
        "icons.json": {"prefix": artist, "width": 36, "height": 36, "icons": ICONS},
        "chars.json": {code: name.replace(" ", "-") for code, name in CODES.items()},
        "info.json": {"license": {"spdx": "MIT"}, "author": {"name": f"{artist}'s", "url": "https://example.org"}},
        "package.json": {"name": f"@iconify-json/{artist}", "version": version},
    } | {name.replace("_", "."): values for name, values in changed.items()}
    with tarfile.open(folder / f"iconify-json-{artist}-{version}.tgz", "w:gz") as archive:
        for name, values in files.items():
            if values is not None:
                content = json.dumps(values).encode()
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def packages(script, tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    for artist in script.ARTISTS:
        pack(folder, artist)
    return folder


def fetch(script, monkeypatch, *arguments):
    """Run the script; returns its exit code."""
    monkeypatch.setattr("sys.argv", ["fetch_drawings", *map(str, arguments)])
    try:
        script.main()
    except SystemExit as ended:
        return ended.code
    return 0


def test_what_is_written_opens_as_drawings_and_says_whose_they_are(script, packages, tmp_path, monkeypatch, capsys):
    output = tmp_path / "drawings"
    assert fetch(script, monkeypatch, "--output", output, "--packages", packages) == 0
    assert "noto                364 drawings of 312 of 312 things, MIT" in capsys.readouterr().out
    index = json.loads((output / "index.json").read_text(encoding="utf-8"))
    assert list(index) == list(script.ARTISTS)
    assert {name: value for name, value in index["openmoji"].items() if name != "things"} == {
        "package": "@iconify-json/openmoji", "version": "1.2.3", "licence": "MIT",
        "author": "openmoji's", "url": "https://example.org",
    }  # fmt: skip
    assert index["noto"]["things"]["tiger"] == ["1f42f.svg", "1f405.svg"]
    svg = (output / "noto" / "1f42f.svg").read_text(encoding="utf-8")
    assert 'viewBox="0 0 36 36"' in svg
    assert ICONS["tiger"]["body"] in svg
    thing = DrawnThing("tiger", "plain", (0, 0, 0), 0.5, 0.5, 0.5, pick=0.99)
    assert Drawings(output).file_of(thing) == "openmoji/1f405.svg"


def test_the_set_without_names_takes_those_of_another_and_an_icon_may_have_several_names(
    script, packages, tmp_path, monkeypatch
):
    icons = {name: icon for name, icon in ICONS.items() if name not in ("tiger", "banjo")}
    icons["tiger-face"] = {"body": "<path/>", "width": 9, "left": 3}
    aliases = {"tiger": {"parent": "tiger-whole"}, "tiger-whole": {"parent": "tiger-face"}}
    pack(packages, "emojione", icons_json={"height": 24, "icons": icons, "aliases": aliases}, chars_json={})
    pack(packages, "twemoji", chars_json=None)
    output = tmp_path / "drawings"
    assert fetch(script, monkeypatch, "--output", output, "--packages", packages) == 0
    index = json.loads((output / "index.json").read_text(encoding="utf-8"))
    assert len(index["twemoji"]["things"]) == 312
    assert set(characters()) - set(index["emojione"]["things"]) == {"banjo"}
    svg = (output / "emojione" / "1f42f.svg").read_text(encoding="utf-8")
    assert 'viewBox="3 0 9 24"' in svg
    assert "<path/>" in svg


def test_the_latest_of_several_packages_is_taken(script, packages, tmp_path, monkeypatch):
    pack(packages, "noto", "1.3.0")
    assert fetch(script, monkeypatch, "--output", tmp_path / "drawings", "--packages", packages) == 0
    index = json.loads((tmp_path / "drawings" / "index.json").read_text(encoding="utf-8"))
    assert index["noto"]["version"] == "1.3.0"


def without_package(folder):
    (folder / "iconify-json-twemoji-1.2.3.tgz").unlink()


def cut_package(folder):
    path = folder / "iconify-json-twemoji-1.2.3.tgz"
    path.write_bytes(path.read_bytes()[:3000])


def text_for_package(folder):
    (folder / "iconify-json-twemoji-1.2.3.tgz").write_text("404: not found")


BROKEN = "iconify-json-twemoji-1.2.3.tgz is no package of twemoji: "


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_package, "holds no iconify-json-twemoji-*.tgz: npm pack @iconify-json/twemoji"),
        (cut_package, BROKEN),
        (text_for_package, BROKEN),
        (lambda folder: pack(folder, "twemoji", icons_json=None), f"{BROKEN}\"filename 'package/icons.json' not"),
        (lambda folder: pack(folder, "twemoji", icons_json={}), f"{BROKEN}its icons.json holds no icons"),
        (lambda folder: pack(folder, "twemoji", info_json=[]), f"{BROKEN}its info.json is no JSON object"),
        (lambda folder: pack(folder, "twemoji", info_json={"license": {}}), f"{BROKEN}'spdx'"),
        (
            lambda folder: pack(
                folder, "twemoji", info_json={"license": {"spdx": "CC-BY-NC-4.0"}, "author": {"name": "", "url": ""}}
            ),
            "twemoji is under CC-BY-NC-4.0; only Apache-2.0, MIT, CC-BY-4.0, CC-BY-SA-4.0 are known to allow",
        ),
    ],
    ids=["missing", "cut", "text", "file-missing", "no-icons", "list", "no-licence", "licence"],
)
def test_what_cannot_be_used_is_one_sentence_and_nothing_is_written(
    script, packages, tmp_path, monkeypatch, capsys, spoil, reason
):
    spoil(packages)
    assert fetch(script, monkeypatch, "--output", tmp_path / "drawings", "--packages", packages) == 2
    told = capsys.readouterr().err
    assert told.startswith("fetch_drawings: ")
    assert reason in told
    assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]


def test_drawings_that_are_there_are_not_replaced(script, packages, tmp_path, monkeypatch, capsys):
    assert fetch(script, monkeypatch, "--output", packages, "--packages", packages) == 2
    assert "is there already: remove it to fetch the drawings again" in capsys.readouterr().err
    assert fetch(script, monkeypatch, "--output", SCRIPT / "below", "--packages", packages) == 2
    assert "fetch_drawings.py is a file" in capsys.readouterr().err


def test_npm_fetches_what_is_not_given(script, packages, tmp_path, monkeypatch, capsys):
    """A stand-in for npm copies the package that it is asked for, and fails for one that it has not."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        "#!/bin/sh\nname=iconify-json-${2#@iconify-json/}-1.2.3.tgz\n"
        f'[ "$4" = --pack-destination ] && cp {packages}/$name "$5/" && echo $name && exit\n'
        'echo "npm error" >&2\nexit 1\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    assert fetch(script, monkeypatch, "--output", tmp_path / "drawings") == 0
    assert len(Drawings(tmp_path / "drawings").artists) == 5
    (packages / "iconify-json-openmoji-1.2.3.tgz").unlink()
    assert fetch(script, monkeypatch, "--output", tmp_path / "again") == 2
    assert "npm could not fetch @iconify-json/openmoji: " in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fetch(script, monkeypatch, "--output", tmp_path / "again") == 2
    assert "npm is not installed: install it, or give the packages with --packages" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()

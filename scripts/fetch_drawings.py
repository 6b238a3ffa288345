"""Fetch the drawings that scenes of drawn things are made of: five artists' emoji sets, from their npm packages.

    python scripts/fetch_drawings.py --output data/drawings

Takes the things named in `drawn_things.yaml` from each set, checks that each set's licence allows its use, and writes
SVG files and `index.json`, with whom to name. Needs `npm`, or the packages themselves: `npm pack NAME` writes one, and
`--packages FOLDER` reads them.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

from fusionvl.run_folder import check_place, written_whole
from fusionvl.synth.scenes.drawings import INDEX
from fusionvl.synth.scenes.drawn_things import characters

ARTISTS = ("noto", "twemoji", "fluent-emoji-flat", "emojione", "openmoji")
LICENCES = ("Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0")
"""All allow use, change and redistribution, with the author named; the last one under itself alone."""
_FILES = ("icons.json", "chars.json", "info.json", "package.json")
_CREDITS = "credits"
_AGAIN = "Get it again with npm pack"
_BOX = {"left": 0, "top": 0, "width": 16, "height": 16}  # and what a package without them means
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_NAMED_AS = "noto"  # whose names for characters the one set without such a list shares


def main() -> None:
    """Fetch, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("data/drawings"), help="folder to write")
    parser.add_argument("--packages", type=Path, help="folder with the packages, in place of npm")
    options = parser.parse_args()
    try:
        write_drawings(options.output, options.packages)
    except ValueError as error:
        print(f"fetch_drawings: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def write_drawings(output: Path, packages: Path | None) -> None:
    """Write the drawings of all artists into a folder that is not there yet.

    Raises:
        ValueError: When the folder is there, a package cannot be had, or its licence is another one.
    """
    if output.exists():
        raise ValueError(f"{output} is there already: remove it to fetch the drawings again")
    check_place(output)
    with tempfile.TemporaryDirectory() as scratch:
        sets = {artist: _open(artist, _package(artist, packages, Path(scratch))) for artist in ARTISTS}
    names = sets[_NAMED_AS]["chars.json"]
    index = {}
    with written_whole(output) as unfinished:
        for artist, files in sets.items():
            things = _write_set(unfinished / artist, files, files["chars.json"] or names)
            index[artist] = {**files[_CREDITS], "things": things}
            drawings = sum(map(len, things.values()))
            print(f"{artist:18} {drawings:4} drawings of {len(things)} of {len(characters())} things, "
                  f"{files[_CREDITS]['licence']}")  # fmt: skip
        (unfinished / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")


def _package(artist: str, packages: Path | None, scratch: Path) -> Path:
    """The file of an artist's package: one that is there, or fetched into a folder of the run."""
    if packages is None:
        _npm_pack(f"@iconify-json/{artist}", scratch)
    folder = packages or scratch
    found = sorted(folder.glob(f"iconify-json-{artist}-[0-9]*.tgz"))
    if not found:
        raise ValueError(f"{folder} holds no iconify-json-{artist}-*.tgz: npm pack @iconify-json/{artist} writes it")
    return found[-1]


def _npm_pack(package: str, folder: Path) -> None:
    if shutil.which("npm") is None:
        raise ValueError("npm is not installed: install it, or give the packages with --packages FOLDER")
    run = subprocess.run(
        ["npm", "pack", package, "--silent", "--pack-destination", str(folder)], capture_output=True, text=True
    )
    if run.returncode:
        reason = " ".join(run.stderr.split())[-300:]
        raise ValueError(f"npm could not fetch {package}: {reason}. Give the packages with --packages FOLDER")


def _open(artist: str, package: Path) -> dict[str, Any]:
    """The files of a package that matter, as values."""
    try:
        with tarfile.open(package, "r:gz") as archive:
            files = {name: _read(archive, name) for name in _FILES}
        if "icons" not in files["icons.json"]:
            raise ValueError("its icons.json holds no icons")
        files[_CREDITS] = _credits(files["info.json"], files["package.json"])
    except (OSError, EOFError, zlib.error, tarfile.TarError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{package} is no package of {artist}: {error}. {_AGAIN}") from error
    licence = files[_CREDITS]["licence"]
    if licence not in LICENCES:
        raise ValueError(f"{artist} is under {licence}; only {', '.join(LICENCES)} are known to allow this use")
    return files


def _read(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    """A file of a package; the list of characters may be missing, which some sets do without."""
    path = f"package/{name}"
    if name == "chars.json" and path not in archive.getnames():
        return {}
    member = archive.extractfile(path)
    values = None if member is None else json.load(member)
    if not isinstance(values, dict):
        raise ValueError(f"its {name} is no JSON object")
    return values


def _credits(info: dict[str, Any], package: dict[str, Any]) -> dict[str, str]:
    """What the index says of a set: where it is from, whose it is, and under which licence."""
    return {
        "package": package["name"],
        "version": package["version"],
        "licence": info["license"]["spdx"],
        "author": info["author"]["name"],
        "url": info["author"]["url"],
    }


def _write_set(folder: Path, files: dict[str, Any], names: dict[str, str]) -> dict[str, list[str]]:
    """Write an artist's drawings; returns the files of each thing."""
    folder.mkdir()
    by_character = {character.replace("-fe0f", ""): name for character, name in names.items()}
    things: dict[str, list[str]] = {}
    for thing, shown in characters().items():
        for character in shown:
            code = f"{ord(character):x}"
            svg = _svg(files["icons.json"], by_character.get(code.rjust(4, "0"), ""))
            if svg is not None:
                (folder / f"{code}.svg").write_text(svg, encoding="utf-8")
                things.setdefault(thing, []).append(f"{code}.svg")
    return things


def _svg(icons: dict[str, Any], name: str) -> str | None:
    """An icon as an SVG file of its own; None where there is none of this name."""
    aliases = icons.get("aliases", {})
    while name in aliases:
        name = aliases[name]["parent"]
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    box = " ".join(str(icon.get(key, icons.get(key, usual))) for key, usual in _BOX.items())
    return f'<svg {_NAMESPACES} viewBox="{box}">{icon["body"]}</svg>'


if __name__ == "__main__":
    main()

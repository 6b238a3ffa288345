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
from pathlib import Path
from typing import Any

from fusionvl.run_folder import written_whole
from fusionvl.synth.scenes.drawings import INDEX
from fusionvl.synth.scenes.drawn_things import characters

ARTISTS = ("noto", "twemoji", "fluent-emoji-flat", "emojione", "openmoji")
LICENCES = ("Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0")
"""All allow use, change and redistribution, with the author named; the last one under itself alone."""
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
    with tempfile.TemporaryDirectory() as scratch:
        sets = {artist: _open(artist, _package(artist, packages, Path(scratch))) for artist in ARTISTS}
    names = sets[_NAMED_AS]["chars.json"]
    index = {}
    with written_whole(output) as unfinished:
        for artist, files in sets.items():
            things = _write_set(unfinished / artist, files, files["chars.json"] or names)
            info, package = files["info.json"], files["package.json"]
            index[artist] = {
                "package": package["name"],
                "version": package["version"],
                "licence": info["license"]["spdx"],
                "author": info["author"]["name"],
                "url": info["author"]["url"],
                "things": things,
            }
            drawings = sum(map(len, things.values()))
            print(f"{artist:18} {drawings:4} drawings of {len(things)} of {len(characters())} things, "
                  f"{info['license']['spdx']}")  # fmt: skip
        (unfinished / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")


def _package(artist: str, packages: Path | None, scratch: Path) -> Path:
    """The file of an artist's package."""
    if packages is not None:
        found = sorted(packages.glob(f"iconify-json-{artist}-[0-9]*.tgz"))
        if not found:
            raise ValueError(f"{packages} holds no iconify-json-{artist}-*.tgz: npm pack @iconify-json/{artist}")
        return found[-1]
    if shutil.which("npm") is None:
        raise ValueError("npm is not installed: install it, or give the packages with --packages FOLDER")
    command = ["npm", "pack", f"@iconify-json/{artist}", "--silent", "--pack-destination", str(scratch)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise ValueError(f"npm could not fetch @iconify-json/{artist}: {run.stderr.strip()[-300:]}")
    return scratch / run.stdout.strip().splitlines()[-1]


def _open(artist: str, package: Path) -> dict[str, Any]:
    """The files of a package that matter, as values."""
    files = {}
    try:
        with tarfile.open(package) as archive:
            for name in ("icons.json", "chars.json", "info.json", "package.json"):
                member = archive.extractfile(f"package/{name}")
                if member is None:
                    raise ValueError(f"{package} holds no {name}")
                files[name] = json.load(member)
    except (OSError, tarfile.TarError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{package} is no package of {artist}: {error}") from error
    licence = files["info.json"]["license"].get("spdx")
    if licence not in LICENCES:
        raise ValueError(f"{artist} is under {licence}; only {', '.join(LICENCES)} are known to allow this use")
    return files


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
    alias = icons.get("aliases", {}).get(name, {})
    icon = icons["icons"].get(alias.get("parent", name))
    if icon is None:
        return None
    box = " ".join(str(icon.get(key, icons.get(key, usual))) for key, usual in _BOX.items())
    return f'<svg {_NAMESPACES} viewBox="{box}">{icon["body"]}</svg>'


if __name__ == "__main__":
    main()

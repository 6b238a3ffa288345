"""Artists' drawings of things, as files: which there are, and each as pixels.

    python scripts/fetch_drawings.py --output data/drawings

makes the folder: SVG files by artist, and `index.json`, which names package, version, licence and author of each
artist, and the files that show each thing. Knows files and pixels; knows no scenes.
"""

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fusionvl.data.extras import import_extra
from fusionvl.run_folder import fingerprint
from fusionvl.synth.scenes.drawn_things import DrawnThing, characters

INDEX = "index.json"
_AGAIN = "Fetch the drawings again"
_PIXELS = 160  # of a drawing's longer side; as large as any small picture shows it


class Drawings:
    """The drawings of some artists.

    Args:
        folder: As `scripts/fetch_drawings.py` writes it.
        artists: Whose; all that are there when empty.

    Raises:
        ValueError: When the folder is none of that kind, an artist is not in it, or none of them has drawn some thing.
    """

    def __init__(self, folder: str | Path, artists: Sequence[str] = ()) -> None:
        self._folder = Path(folder)
        index = self._read_index()
        if unknown := [artist for artist in artists if artist not in index]:
            raise ValueError(f"{self._folder} holds no drawings of {', '.join(unknown)}, only of {', '.join(index)}")
        self.artists: tuple[str, ...] = tuple(artists or index)
        self._files: dict[str, list[str]] = {}
        for artist in self.artists:
            for name, drawn in index[artist].items():
                self._files.setdefault(name, []).extend(f"{artist}/{file}" for file in drawn)
        if missing := [name for name in characters() if not self._files.get(name)]:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(
                f"{self._folder} holds no drawing by {', '.join(self.artists)} of {len(missing)} of "
                f"{len(characters())} things ({some}): take other artists, or more, or fetch the drawings again"
            )

    def _read_index(self) -> dict[str, dict[str, list[str]]]:
        """The files of each thing, by artist."""
        path = self._folder / INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            return {artist: {name: [*files] for name, files in its["things"].items()} for artist, its in index.items()}
        except FileNotFoundError:
            raise ValueError(
                f"There are no drawings in {self._folder}: no {path}. Fetch them with "
                f"python scripts/fetch_drawings.py --output {self._folder}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no index of drawings: {error}. Fetch them again") from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells whether two collections hold the same drawings.

        Raises:
            ValueError: When a file is missing.
        """
        try:
            return fingerprint([(file, (self._folder / file).read_bytes().hex()) for file in self._all_files()])
        except OSError as error:
            raise ValueError(f"The drawing {error.filename} cannot be read: {error.strerror}. {_AGAIN}") from error

    def _all_files(self) -> list[str]:
        return sorted(file for drawn in self._files.values() for file in drawn)

    def file_of(self, thing: DrawnThing) -> str:
        """Which drawing shows a thing, as `ARTIST/FILE`."""
        drawn = self._files[thing.shape]
        return drawn[min(int(thing.pick * len(drawn)), len(drawn) - 1)]

    def image_of(self, thing: DrawnThing, side: int) -> Image.Image:
        """A thing turned and mirrored as it is, its longer side so many pixels, RGBA; nothing but itself around it.

        Raises:
            ValueError: When its file is missing or broken.
        """
        image = _rasterised(self._folder / self.file_of(thing))
        image = image.reduce(max(1, max(image.size) // (2 * side)))  # what is turned is no larger than need be
        if thing.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if thing.angle:
            image = image.rotate(thing.angle, Image.Resampling.BICUBIC, expand=True)
        image = image.crop(image.getbbox())
        scale = side / max(image.size)
        extent = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return image.resize(extent, Image.Resampling.BICUBIC)


@functools.lru_cache(4096)
def _rasterised(path: Path) -> Image.Image:
    """A drawing without its margins.

    Raises:
        ValueError: When the file is missing, no SVG, or shows nothing.
    """
    resvg = import_extra("resvg_py", extra="synth", needed_for="Pictures of drawn things")
    try:
        shown = resvg.svg_to_bytes(svg_path=str(path), width=_PIXELS, height=_PIXELS)
        image = Image.open(io.BytesIO(bytes(shown)), formats=["PNG"]).convert("RGBA")
    except (OSError, ValueError) as error:
        raise ValueError(f"The drawing {path} cannot be read: {error}. {_AGAIN}") from error
    box = image.getbbox()
    if box is None:
        raise ValueError(f"The drawing {path} shows nothing. {_AGAIN}")
    return image.crop(box)

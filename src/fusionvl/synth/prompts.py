"""The prompts: one versioned text file per kind and step, filled with what a row knows.

A file is `STEP/KIND.v1.txt`, `system.v1.txt` or `repair.v1.txt`; the newest version is used. A folder of the user's
own replaces files of the same name. What varies between rows of one kind (viewpoint, light, number, place of the right
option) is drawn by the row's seed, so that a language model does not describe the same picture over and over. Knows no
backend.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TypeAlias

from fusionvl.synth.kinds.scene_question import OPTIONS
from fusionvl.synth.rows import Row, seed_of

Said: TypeAlias = tuple[tuple[str, str], ...]
"""(role, text) after (role, text), the roles being system and user."""

_OURS = Path(__file__).parent / "prompt_texts"
_FILE = re.compile(r"(?P<name>\w+)\.v(?P<version>\d+)")
_VIEWPOINTS = (
    "seen from eye level", "seen from slightly above", "seen from straight above", "a close-up",
    "seen from a distance", "seen from a low angle",
)  # fmt: skip
_LIGHTS = (
    "soft morning light", "bright midday sun", "an overcast sky", "warm evening light", "indoor lamplight",
    "even studio light",
)  # fmt: skip
_MEDIA = ("a photograph", "a photograph", "a photograph", "an illustration", "a painting", "a 3D rendering")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, with all that a model may be told because of it.

    Attributes:
        name: Step, kind and version: `describe/SynthColor.v1`.
        system: What the model is told about its task.
        user: What is asked for one row.
        repair: What is asked after an answer that does not fit.
    """

    name: str
    system: str
    user: str
    repair: str = ""

    @property
    def signature(self) -> str:
        """Its name and a hash of its texts, for rows to keep."""
        digest = hashlib.sha256("\0".join((self.system, self.user, self.repair)).encode()).hexdigest()
        return f"{self.name} {digest[:16]}"


class Prompts:
    """All prompts of a run.

    Args:
        language: What answers are written in.
        own: A folder with prompts that replace ours.

    Attributes:
        hashes: The signature of every prompt, by step and kind.

    Raises:
        ValueError: When the folder is missing or holds something else, a prompt is empty or no text, or has a field
            that does not exist.
    """

    def __init__(self, language: str, own: Path | None = None) -> None:
        self._language = language
        ours = _newest(_OURS)
        theirs = _newest(own) if own else {}
        if own and (not theirs or not theirs.keys() <= ours.keys()):
            found = ", ".join(sorted(theirs.keys() - ours.keys())) or "no prompt"
            raise ValueError(f"{own} holds {found}; prompts are called {', '.join(sorted(ours))}, each with .v1.txt")
        of_a_row = dict.fromkeys(_fields(Row(id="", kind=""), language), "")
        texts = {
            name: _read(path, {"fault": ""} if name == "repair" else of_a_row)
            for name, path in (ours | theirs).items()
        }
        self._repair = texts["repair"]
        self._prompts = {
            name: Prompt(f"{name}{path.suffixes[0]}", texts["system"], texts[name], texts["repair"])
            for name, path in (ours | theirs).items()
            if "/" in name
        }
        self.hashes = {name: prompt.signature for name, prompt in self._prompts.items()}

    def of(self, step: str, kind: str) -> Prompt:
        """The prompt of a step for a kind."""
        return self._prompts[f"{step}/{kind}"]

    def fill(self, prompt: Prompt, row: Row) -> Said:
        """What is asked for a row."""
        fields = _fields(row, self._language)
        system, user = (Template(text).substitute(fields) for text in (prompt.system, prompt.user))
        return (("system", system), ("user", user))

    def repair(self, fault: str) -> str:
        """What is asked after an answer that does not fit."""
        return Template(self._repair).substitute(fault=fault)


def _fields(row: Row, language: str) -> dict[str, str]:
    """What can be filled into a prompt; what begins with the viewpoint varies from row to row."""
    draw = random.Random(seed_of(row.id, "prompt"))
    letter = draw.choice(OPTIONS)
    return {
        "caption": row.caption,
        "description": row.description,
        "language": language,
        "viewpoint": draw.choice(_VIEWPOINTS),
        "light": draw.choice(_LIGHTS),
        "medium": draw.choice(_MEDIA),
        "count": str(draw.randint(1, 9)),
        "letter": letter,
        "place": str(OPTIONS.index(letter) + 1),
    }


def _read(path: Path, known: dict[str, str]) -> str:
    """The text of a prompt that holds no other fields than these."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        Template(text).substitute(known)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: a prompt is UTF-8 text: {error}") from error
    except (KeyError, ValueError) as error:
        fields = ", ".join(f"${name}" for name in known)
        raise ValueError(f"{path}: {error} cannot be filled in; it may hold {fields}, and $$ for $") from error
    if not text:
        raise ValueError(f"{path}: the prompt is empty")
    return text


def _newest(folder: Path) -> dict[str, Path]:
    """The newest version of every prompt in a folder, by its name: `describe/SynthColor`, `system`, ..."""
    found: dict[str, tuple[int, Path]] = {}
    for path in folder.rglob("*.txt"):
        match = _FILE.fullmatch(path.stem)
        if match is None:
            raise ValueError(f"{path}: a prompt is called NAME.v1.txt, with its version")
        name = (path.parent.relative_to(folder) / match["name"]).as_posix()
        found[name] = max(found.get(name, (0, path)), (int(match["version"]), path))
    return {name: path for name, (_, path) in found.items()}

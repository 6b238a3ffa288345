"""The kinds of rows, each in one place: what language models write for it, its scenes, and what is asked about them.

Prompts are files of their own, `prompt_texts/STEP/KIND.v1.txt`. What kinds draw with is in `scenes`.
"""

from fusionvl.synth.kinds.contrasts import CONTRAST_LONG, CONTRAST_SHORT
from fusionvl.synth.kinds.conversations import CONV_LONG, CONV_QUIZ, CONV_SHORT, MULTI_CHOICE
from fusionvl.synth.kinds.drawn import DRAWN
from fusionvl.synth.kinds.from_scratch import FROM_SCRATCH
from fusionvl.synth.kinds.kind import Kind
from fusionvl.synth.kinds.reasoning import REASONING
from fusionvl.synth.kinds.synth_color import SYNTH_COLOR
from fusionvl.synth.kinds.synth_count import SYNTH_COUNT
from fusionvl.synth.kinds.synth_scene import SYNTH_SCENE
from fusionvl.synth.kinds.synth_spatial import SYNTH_SPATIAL
from fusionvl.synth.kinds.synth_text import SYNTH_TEXT
from fusionvl.synth.kinds.text_qa import TEXT_QA

_FOR_ALIGNMENT = (SYNTH_COLOR, SYNTH_COUNT, SYNTH_SPATIAL, SYNTH_SCENE, SYNTH_TEXT)
_FOR_INSTRUCTION = (MULTI_CHOICE, CONV_SHORT, CONV_LONG, CONTRAST_SHORT, CONTRAST_LONG, REASONING, TEXT_QA)

_OF_SCENES_ALONE = (*FROM_SCRATCH, CONV_QUIZ, *DRAWN)

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*_FOR_ALIGNMENT, *_FOR_INSTRUCTION, *_OF_SCENES_ALONE)}
"""The paper's twelve, five for alignment and seven for instruction, then ten of our own, of scenes alone."""


def kind_named(name: str) -> Kind:
    """The kind of this name.

    Raises:
        ValueError: When there is none; names all there are.
    """
    if name not in KINDS:
        raise ValueError(f"There is no kind {name!r}, only {', '.join(KINDS)}")
    return KINDS[name]


__all__ = ["KINDS", "Kind", "kind_named"]

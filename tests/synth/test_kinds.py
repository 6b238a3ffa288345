"""What language models have to write: a schema for each kind, what it refuses, and the prompts that ask for it."""

import json

import pytest

from fusionvl.synth.kinds import KINDS, kind_named
from fusionvl.synth.kinds.written import AnswerError, parse, pictures_of
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.rows import Row, SynthTurn

ASKED = [name for name, kind in KINDS.items() if kind.asked]
LONG = "It stands in the rain, and its roof is wet."


def turn_fields(kind):
    """The names in the order in which a model that is kept to the schema writes them."""
    schema = KINDS[kind].asked.model_json_schema()
    (name,) = (ref["$ref"].rsplit("/", 1)[1] for ref in [schema["properties"]["turns"]["items"]])
    return list(schema["$defs"][name]["properties"])


def test_reasoning_is_written_before_its_answer():
    assert turn_fields("Reasoning") == ["question", "reasoning", "answer"]


@pytest.mark.parametrize("kind", ASKED)
def test_every_prompt_shows_the_form_of_its_answer_in_the_order_of_the_schema(kind):
    prompts = Prompts("English")
    shown = {}
    for step in ("describe", "questions"):
        asked = prompts.fill(prompts.of(step, kind), Row(id="1", kind=kind))[1][1]
        shown[step] = json.loads(asked[asked.rindex("form {") + 5 : -1])
    assert list(shown["describe"]) == list(KINDS[kind].described.model_fields)
    (turn,) = shown["questions"]["turns"]
    assert list(turn) == turn_fields(kind)


def answer(**fields):
    return json.dumps({"turns": [{"question": "What is it?", "answer": "A dog.", **fields}]})


OPTIONS = ["a dog", "a cat", "a cow", "a pig"]
CHOICE = {"question": "What is it?", "options": OPTIONS, "correct": "B"}


@pytest.mark.parametrize(
    ("kind", "text", "turn"),
    [
        ("SynthSpatial", answer(), SynthTurn("What is it?", "A dog.")),
        ("SynthColor", answer(color="red"), SynthTurn("What is it?", "A dog.", correct="red")),
        ("SynthCount", answer(count=3), SynthTurn("What is it?", "A dog.", correct="3")),
        ("TextQA", f"Sure:\n{answer(written='STOP')}\nBye", SynthTurn("What is it?", "A dog.", correct="STOP")),
        (
            "Reasoning",
            answer(reasoning=LONG),
            SynthTurn("What is it?", f"{LONG} So the answer is: A dog.", correct="A dog."),
        ),
        (
            "MultiChoice",
            json.dumps({"turns": [CHOICE]}),
            SynthTurn(
                "What is it?\nA. a dog\nB. a cat\nC. a cow\nD. a pig\nAnswer with the letter of the right option.",
                "B", tuple(OPTIONS), "B",
            ),
        ),
    ],
)  # fmt: skip
def test_an_answer_becomes_a_rows_turns(kind, text, turn):
    assert parse(text, KINDS[kind].asked).as_turns() == (turn,)


@pytest.mark.parametrize(
    ("kind", "text", "fault"),
    [
        ("SynthSpatial", " ", "the answer is empty"),
        ("SynthSpatial", "I cannot.", "holds no JSON object"),
        ("SynthSpatial", '{"turns": [}', "no valid JSON"),
        ("SynthSpatial", answer(mood="good"), r"turns\.0\.mood: Extra inputs"),
        ("SynthSpatial", '{"turns": []}', "turns: List should have at least 1 item"),
        ("ConvShort", answer(), "turns: List should have at least 2 items"),
        ("SynthColor", answer(color=" "), r"turns\.0\.color: String should have at least 1 character"),
        ("SynthCount", answer(count="several"), r"turns\.0\.count: Input should be a valid integer"),
        ("SynthCount", answer(count=101), "less than or equal to 100"),
        ("Reasoning", answer(reasoning="So."), r"turns\.0\.reasoning: String should have at least 20 characters"),
        ("MultiChoice", json.dumps({"turns": [{**CHOICE, "correct": "E"}]}), "Input should be 'A', 'B', 'C' or 'D'"),
        ("MultiChoice", json.dumps({"turns": [{**CHOICE, "options": OPTIONS[:3]}]}), "at least 4 items"),
        ("MultiChoice", json.dumps({"turns": [{**CHOICE, "options": ["A Cat", *OPTIONS[1:]]}]}), "two options are"),
        ("MultiChoice", json.dumps({"turns": [CHOICE, CHOICE]}), "at most 1 item"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_answer_is_told(kind, text, fault):
    with pytest.raises(AnswerError, match=fault):
        parse(text, KINDS[kind].asked)


def test_two_descriptions_are_told_apart_in_a_row_and_must_differ():
    schema = KINDS["ContrastShort"].described
    text = parse(json.dumps({"left": f"{LONG}\nDry.", "right": LONG}), schema).as_text()
    assert text == f"Left image: {LONG} Dry.\nRight image: {LONG}"
    assert pictures_of(text) == (f"{LONG} Dry.", LONG)
    assert pictures_of(LONG) == (LONG,)
    with pytest.raises(AnswerError, match="left and right are the same"):
        parse(json.dumps({"left": LONG, "right": f" {LONG}"}), schema)


def test_ten_kinds_are_of_scenes_alone_and_an_unknown_one_is_told():
    from_scratch = {"SynthLayout", "SynthPlaces", "SynthWhere", "SynthDirection", "ConvQuiz"}
    drawn = {"DrawnThing", "DrawnNames", "DrawnScene", "DrawnCount", "DrawnSmall"}
    assert KINDS.keys() - ASKED == from_scratch | drawn
    with pytest.raises(ValueError, match="no kind 'Smell', only SynthColor, "):
        kind_named("Smell")


def own(folder, **texts):
    """A folder of prompts of one's own."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.v1.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    return Prompts("French", folder)


def test_own_prompts_replace_ours_the_newest_of_each_name(tmp_path):
    (tmp_path / "describe").mkdir()
    (tmp_path / "describe" / "SynthColor.v12.txt").write_text("Describe $caption in $$ and $language.")
    mixed = own(tmp_path, describe__SynthColor="Old.")
    prompt = mixed.of("describe", "SynthColor")
    assert prompt.name == "describe/SynthColor.v12"
    row = Row(id="1", kind="SynthColor", caption="$5 note")
    assert mixed.fill(prompt, row)[1] == ("user", "Describe $5 note in $ and French.")


@pytest.mark.parametrize(
    ("name", "changed"), [("describe__SynthColor", 1), ("system", 2 * len(ASKED)), ("repair", 2 * len(ASKED))]
)
def test_hashes_tell_whatever_of_a_prompt_is_ones_own(tmp_path, name, changed):
    ours, mixed = Prompts("French").hashes, own(tmp_path, **{name: "Be brief."}).hashes
    assert sum(mixed[name] != ours[name] for name in ours) == changed


@pytest.mark.parametrize("name", ["describe__SynthColor", "questions__TextQA", "system", "repair"])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Describe $captoin.", r"\.v1\.txt: 'captoin' cannot be filled in; it may hold \$"),
        ("It costs $5.", "cannot be filled in"),
        (" \n", "the prompt is empty"),
        ("Décris.", "a prompt is UTF-8 text"),
    ],
)
def test_own_prompts_that_cannot_be_are_told_before_the_run(tmp_path, name, text, fault):
    with pytest.raises(ValueError, match=fault):
        own(tmp_path, **{name: text})


def test_a_repair_knows_the_fault_alone(tmp_path):
    assert own(tmp_path, repair="Mend: $fault").repair("it costs $5") == "Mend: it costs $5"
    with pytest.raises(ValueError, match=r"'caption' cannot be filled in; it may hold \$fault, and"):
        own(tmp_path, repair="Mend $caption.")


def test_files_that_are_no_prompts_are_told(tmp_path):
    with pytest.raises(ValueError, match="holds no prompt"):
        Prompts("English", tmp_path / "none")
    with pytest.raises(ValueError, match="holds describe/SynthColour; prompts are called"):
        own(tmp_path, describe__SynthColour="x")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"a prompt is called NAME\.v1\.txt"):
        Prompts("English", tmp_path)

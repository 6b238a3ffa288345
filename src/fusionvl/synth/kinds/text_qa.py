"""TextQA: signs that say something, price lists, opening hours, departures, words in another language.

Each builds the sign together with the questions it answers.
"""

from fusionvl.synth.kinds.kind import Content, Kind
from fusionvl.synth.kinds.scene_question import SceneQuestion, drawn, yes_no
from fusionvl.synth.kinds.synth_text import AskedText
from fusionvl.synth.kinds.topic import Composed
from fusionvl.synth.kinds.written import conversation
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.lexicon import GOODS, LANGUAGES, SHOPS, made_up_name, notions_of, tells_its_language
from fusionvl.synth.scenes.scene_graph import Background
from fusionvl.synth.scenes.signs import sign_scene
from fusionvl.synth.scenes.things import Split, draw_background, words_of
from fusionvl.synth.scenes.wording import sentence

_PRICES = range(1, 19)
_LAST_HOUR = 23


def notices(draws: Draws, split: Split) -> Composed:
    """One of the four with all questions about it."""
    return draws.one_of((_price_list, _opening_hours, _departure, _foreign_word))(draws, split, draw_background(draws))


def _price_list(draws: Draws, split: Split, background: Background) -> Composed:
    """Two to four goods with different prices."""
    goods = draws.some_of(words_of(split, GOODS), draws.integer(2, 4))
    prices = draws.some_of(_PRICES, len(goods))
    scene = sign_scene(draws, background, [[f"{good} ${price}" for good, price in zip(goods, prices, strict=True)]])
    named = list(zip(goods, prices, strict=True))
    questions = [_price(draws, good.lower(), price) for good, price in named]
    by_price = sorted(named, key=lambda pair: pair[1])
    for word, (good, price) in (("cheapest", by_price[0]), ("most expensive", by_price[-1])):
        full = f"The {word} item on the list is the {good.lower()}, at ${price}."
        others = tuple(other for other in goods if other != good)
        questions.append(SceneQuestion(f"What is the {word} item on the list?", good, full, others))
    (one, price), (other, other_price) = draws.some_of([(good.lower(), price) for good, price in named], 2)
    total, facts = price + other_price, f"the {one} costs ${price} and the {other} ${other_price}"
    wrong = tuple(f"${total + off}" for off in (1, -1, 2))
    text = f"How much do the {one} and the {other} cost together?"
    questions.append(SceneQuestion(text, f"${total}", sentence(f"{facts}, together ${total}"), wrong))
    questions.append(yes_no(f"Is the {one} cheaper than the {other}?", price < other_price, facts, facts))
    return Composed(scene, questions)


def _price(draws: Draws, good: str, price: int) -> SceneQuestion:
    forms = ("How much is the {g}?", "What does the {g} cost?", "What is the price of the {g}?")
    text = draws.phrase(forms, g=good)
    wrong = tuple(f"${other}" for other in draws.others(_PRICES, price))
    return SceneQuestion(text, f"${price}", f"The price of the {good} is ${price}.", wrong)


def _opening_hours(draws: Draws, split: Split, background: Background) -> Composed:
    """A shop with its name and hours."""
    shops = words_of(split, SHOPS)
    shop = draws.one_of(shops)
    opens, closes = draws.integer(6, 11), draws.integer(14, 22)
    scene = sign_scene(draws, background, [[shop, f"{opens}:00-{closes}:00"]])
    place, long = shop.lower(), closes - opens
    asked = opens
    while asked in (opens, closes) or asked > _LAST_HOUR:
        asked = draws.integer(opens - 3, closes + 3)
    statement = f"the {place} is open from {opens}:00 to {closes}:00"
    duration = f"From {opens}:00 to {closes}:00 it is open for {long} hours."
    questions = [
        _hour(draws, f"When does the {place} open?", opens, f"The {place} opens at {opens}:00."),
        _hour(draws, f"When does the {place} close?", closes, f"The {place} closes at {closes}:00."),
    ]
    others = draws.others(map(str.lower, shops), place)
    text = "What kind of place is the sign for?"
    questions.append(SceneQuestion(text, place, f"The sign is for the {place}.", others))
    wrong = tuple(str(long + off) for off in (1, -1, 2))
    questions.append(SceneQuestion(f"For how many hours is the {place} open?", str(long), duration, wrong))
    questions.append(yes_no(f"Is the {place} open at {asked}:00?", opens < asked < closes, statement, statement))
    return Composed(scene, questions)


def _hour(draws: Draws, text: str, hour: int, full: str) -> SceneQuestion:
    wrong = tuple(f"{other}:00" for other in draws.others(range(5, _LAST_HOUR + 1), hour))
    return SceneQuestion(text, f"{hour}:00", full, wrong)


def _departure(draws: Draws, split: Split, background: Background) -> Composed:
    """A train to somewhere, at a time, from a platform."""
    town = made_up_name(draws, split)
    minute, hour, platform = draws.integer(0, 59), draws.integer(5, _LAST_HOUR), draws.integer(1, 12)
    time = f"{hour}:{minute:02d}"
    scene = sign_scene(draws, background, [[town, time, f"Platform {platform}"]])
    times = tuple(f"{(hour + shift) % 24}:{(minute + 7 * shift) % 60:02d}" for shift in (1, 2, 3))
    towns = dict.fromkeys(other for other in [made_up_name(draws, split) for _ in range(6)] if other != town)
    when = draws.phrase(("When does the train leave?", "At what time does the train depart?"))
    return Composed(scene, [
        SceneQuestion("Where does the train go?", town, f"The train goes to {town}.", tuple(towns)[:3]),
        SceneQuestion(when, time, f"The train leaves at {time}.", times),
        SceneQuestion("From which platform does the train leave?", str(platform),
                      f"The train leaves from platform {platform}.", tuple(str(platform + i) for i in (1, 2, 3))),
    ])  # fmt: skip


def _foreign_word(draws: Draws, split: Split, background: Background) -> Composed:
    """A word in one of eight languages."""
    notions = notions_of(split)
    notion = draws.one_of(notions)
    number = draws.integer(0, len(LANGUAGES) - 1)
    while not tells_its_language(notion, number):
        number = draws.integer(0, len(LANGUAGES) - 1)
    word, language = notion[number], LANGUAGES[number]
    scene = sign_scene(draws, background, [[word]], language)
    says = draws.phrase(("What does the sign say?", "What is written on the sign?"))
    words = draws.others([row[number] for row in notions], word)
    written = draws.phrase(("In which language is the sign?", "Which language is the sign written in?"))
    questions = [
        SceneQuestion(says, word, f'The sign says "{word}".', words),
        SceneQuestion(written, language, f"The sign is written in {language}.", draws.others(LANGUAGES, language)),
    ]
    if language != "English":
        meaning = notion[0].lower()
        wrong = draws.others([row[0].lower() for row in notions], meaning)
        full = f'"{word}" is {language} for "{meaning}".'
        questions.append(SceneQuestion("What does the word on the sign mean in English?", meaning, full, wrong))
    return Composed(scene, questions)


def _scene(draws: Draws, split: Split) -> Content:
    composed = notices(draws, split)
    questions = drawn(draws, composed.questions, draws.integer(1, 3))
    forms = (SceneQuestion.short, SceneQuestion.long)
    return composed.content(draws.one_of(forms)(question) for question in questions)


TEXT_QA = Kind("TextQA", _scene, conversation(AskedText, 1, 3))

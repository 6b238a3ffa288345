"""Signs that say something: price lists, opening hours, departures, words in another language.

Each builds the sign together with the questions it answers.
"""

from fusionvl.synth.scenes.combinations import Split, words_of
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.lexicon import GOODS, LANGUAGES, SHOPS, made_up_name, notions_of, only_in_one_language
from fusionvl.synth.scenes.questions.question import Question, phrased, yes_no
from fusionvl.synth.scenes.scene_graph import Background, Scene
from fusionvl.synth.scenes.signs import sign_scene

Notice = tuple[Scene, list[Question]]


def price_list(draws: Draws, split: Split, background: Background) -> Notice:
    """Two to four goods with different prices."""
    goods = draws.some_of(words_of(split, GOODS), draws.integer(2, 4))
    prices = draws.some_of(range(1, 19), len(goods))
    scene = sign_scene(draws, background, [[f"{good} ${price}" for good, price in zip(goods, prices, strict=True)]])
    named = list(zip(goods, prices, strict=True))
    questions = [
        Question(
            "text",
            phrased(
                draws,
                ("How much is the {g}?", "What does the {g} cost?", "What is the price of the {g}?"),
                g=good.lower(),
            ),
            f"${price}",
            f"The price of the {good.lower()} is ${price}.",
            tuple(f"${other}" for other in draws.some_of([p for p in range(1, 19) if p != price], 3)),
        )
        for good, price in named
    ]
    by_price = sorted(named, key=lambda pair: pair[1])
    for word, (good, price) in (("cheapest", by_price[0]), ("most expensive", by_price[-1])):
        others = tuple(other for other in goods if other != good)
        full = f"The {word} item on the list is the {good.lower()}, at ${price}."
        questions.append(Question("text", f"What is the {word} item on the list?", good, full, others))
    (one, price), (other, other_price) = draws.some_of(named, 2)
    total = price + other_price
    full = f"The {one.lower()} costs ${price} and the {other.lower()} ${other_price}, together ${total}."
    text = f"How much do the {one.lower()} and the {other.lower()} cost together?"
    questions.append(Question("text", text, f"${total}", full, (f"${total + 1}", f"${total - 1}", f"${total + 2}")))
    facts = f"the {one.lower()} costs ${price} and the {other.lower()} ${other_price}"
    text = f"Is the {one.lower()} cheaper than the {other.lower()}?"
    questions.append(yes_no("text", text, price < other_price, facts, facts))
    return scene, questions


def opening_hours(draws: Draws, split: Split, background: Background) -> Notice:
    """A shop with its name and hours."""
    shop = draws.one_of(words_of(split, SHOPS))
    opens, closes = draws.integer(6, 11), draws.integer(14, 22)
    hours = f"{opens}:00-{closes}:00"
    scene = sign_scene(draws, background, [[shop, hours]])
    place = shop.lower()
    asked = draws.integer(opens - 3, closes + 3)
    while asked in (opens, closes):
        asked = draws.integer(opens - 3, closes + 3)
    statement = f"the {place} is open from {opens}:00 to {closes}:00"
    return scene, [
        _hour(draws, f"When does the {place} open?", opens, f"The {place} opens at {opens}:00."),
        _hour(draws, f"When does the {place} close?", closes, f"The {place} closes at {closes}:00."),
        Question(
            "text",
            "What kind of place is the sign for?",
            place,
            f"The sign is for the {place}.",
            tuple(draws.some_of([name.lower() for name in words_of(split, SHOPS) if name != shop], 3)),
        ),
        Question(
            "text",
            f"For how many hours is the {place} open?",
            str(closes - opens),
            f"From {opens}:00 to {closes}:00 it is open for {closes - opens} hours.",
            tuple(str(closes - opens + off) for off in (1, -1, 2)),
        ),
        yes_no("text", f"Is the {place} open at {asked}:00?", opens < asked < closes, statement, statement),
    ]


def _hour(draws: Draws, text: str, hour: int, full: str) -> Question:
    wrong = tuple(f"{other}:00" for other in draws.some_of([h for h in range(5, 24) if h != hour], 3))
    return Question("text", text, f"{hour}:00", full, wrong)


def departure(draws: Draws, split: Split, background: Background) -> Notice:
    """A train to somewhere, at a time, from a platform."""
    town = made_up_name(draws, split)
    minute, hour, platform = draws.integer(0, 59), draws.integer(5, 23), draws.integer(1, 12)
    time = f"{hour}:{minute:02d}"
    scene = sign_scene(draws, background, [[town, time, f"Platform {platform}"]])
    times = tuple(f"{(hour + shift) % 24}:{(minute + 7 * shift) % 60:02d}" for shift in (1, 2, 3))
    towns = [made_up_name(draws, split) for _ in range(6)]
    return scene, [
        Question(
            "text",
            "Where does the train go?",
            town,
            f"The train goes to {town}.",
            tuple(dict.fromkeys(other for other in towns if other != town))[:3],
        ),
        Question(
            "text",
            phrased(draws, ("When does the train leave?", "At what time does the train depart?")),
            time,
            f"The train leaves at {time}.",
            times,
        ),
        Question(
            "text",
            "From which platform does the train leave?",
            str(platform),
            f"The train leaves from platform {platform}.",
            tuple(str(platform + shift) for shift in (1, 2, 3)),
        ),
    ]


def foreign_word(draws: Draws, split: Split, background: Background) -> Notice:
    """A word in one of eight languages."""
    notions = notions_of(split)
    notion = draws.one_of(notions)
    number = draws.integer(0, len(LANGUAGES) - 1)
    while not only_in_one_language(notion, notion[number]):
        number = draws.integer(0, len(LANGUAGES) - 1)
    word, language = notion[number], LANGUAGES[number]
    scene = sign_scene(draws, background, [[word]], language)
    others = [row[number] for row in notions if row is not notion]
    questions = [
        Question(
            "text",
            phrased(draws, ("What does the sign say?", "What is written on the sign?")),
            word,
            f'The sign says "{word}".',
            tuple(draws.some_of(others, 3)),
        ),
        Question(
            "text",
            phrased(draws, ("In which language is the sign?", "Which language is the sign written in?")),
            language,
            f"The sign is written in {language}.",
            tuple(draws.some_of([name for name in LANGUAGES if name != language], 3)),
        ),
    ]
    if language != "English":
        meaning = notion[0].lower()
        wrong = tuple(row[0].lower() for row in draws.some_of([row for row in notions if row is not notion], 3))
        full = f'"{word}" is {language} for "{meaning}".'
        questions.append(Question("text", "What does the word on the sign mean in English?", meaning, full, wrong))
    return scene, questions


NOTICES = (price_list, opening_hours, departure, foreign_word)

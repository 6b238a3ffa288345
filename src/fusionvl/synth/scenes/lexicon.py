"""Words that stand on signs: the same notions in eight languages, shop names, and made-up names.

Knows words only.
"""

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.things import Split, words_of

LANGUAGES = ("English", "German", "French", "Spanish", "Italian", "Polish", "Greek", "Russian")

_NOTIONS = """
EXIT AUSGANG SORTIE SALIDA USCITA WYJŚCIE ΕΞΟΔΟΣ ВЫХОД
ENTRANCE EINGANG ENTRÉE ENTRADA ENTRATA WEJŚCIE ΕΙΣΟΔΟΣ ВХОД
BREAD BROT PAIN PAN PANE CHLEB ΨΩΜΙ ХЛЕБ
COFFEE KAFFEE CAFÉ CAFÉ CAFFÈ KAWA ΚΑΦΕΣ КОФЕ
MILK MILCH LAIT LECHE LATTE MLEKO ΓΑΛΑ МОЛОКО
WATER WASSER EAU AGUA ACQUA WODA ΝΕΡΟ ВОДА
STATION BAHNHOF GARE ESTACIÓN STAZIONE DWORZEC ΣΤΑΘΜΟΣ ВОКЗАЛ
PHARMACY APOTHEKE PHARMACIE FARMACIA FARMACIA APTEKA ΦΑΡΜΑΚΕΙΟ АПТЕКА
SCHOOL SCHULE ÉCOLE ESCUELA SCUOLA SZKOŁA ΣΧΟΛΕΙΟ ШКОЛА
MUSEUM MUSEUM MUSÉE MUSEO MUSEO MUZEUM ΜΟΥΣΕΙΟ МУЗЕЙ
MARKET MARKT MARCHÉ MERCADO MERCATO RYNEK ΑΓΟΡΑ РЫНОК
BAKERY BÄCKEREI BOULANGERIE PANADERÍA PANIFICIO PIEKARNIA ΦΟΥΡΝΟΣ ПЕКАРНЯ
LIBRARY BÜCHEREI BIBLIOTHÈQUE BIBLIOTECA BIBLIOTECA BIBLIOTEKA ΒΙΒΛΙΟΘΗΚΗ БИБЛИОТЕКА
BEACH STRAND PLAGE PLAYA SPIAGGIA PLAŻA ΠΑΡΑΛΙΑ ПЛЯЖ
GARDEN GARTEN JARDIN JARDÍN GIARDINO OGRÓD ΚΗΠΟΣ САД
BRIDGE BRÜCKE PONT PUENTE PONTE MOST ΓΕΦΥΡΑ МОСТ
OPEN GEÖFFNET OUVERT ABIERTO APERTO OTWARTE ΑΝΟΙΚΤΟ ОТКРЫТО
CLOSED GESCHLOSSEN FERMÉ CERRADO CHIUSO ZAMKNIĘTE ΚΛΕΙΣΤΟ ЗАКРЫТО
APPLES ÄPFEL POMMES MANZANAS MELE JABŁKA ΜΗΛΑ ЯБЛОКИ
BOOKS BÜCHER LIVRES LIBROS LIBRI KSIĄŻKI ΒΙΒΛΙΑ КНИГИ
HOSPITAL KRANKENHAUS HÔPITAL HOSPITAL OSPEDALE SZPITAL ΝΟΣΟΚΟΜΕΙΟ БОЛЬНИЦА
AIRPORT FLUGHAFEN AÉROPORT AEROPUERTO AEROPORTO LOTNISKO ΑΕΡΟΔΡΟΜΙΟ АЭРОПОРТ
"""

NOTIONS: tuple[tuple[str, ...], ...] = tuple(tuple(line.split()) for line in _NOTIONS.split("\n") if line)
"""One row a notion, one word a language, in the order of `LANGUAGES`."""

SHARED = (
    "PAIN", "PAN", "PANE", "LATTE", "MOST", "STRAND", "SORTIE", "ENTRÉE", "POMMES", "GARE", "PLAGE", "PLAYA", "PONTE",
    "JARDIN", "MERCATO", "STATION", "MARKET", "BRIDGE", "WATER",
)  # fmt: skip
"""Words that another of the languages has as well, with another meaning or the same: they do not tell theirs."""

WORDS = (
    "BOOKS", "MUSIC", "SALE", "STOP", "PARK", "TAXI", "HOTEL", "PIZZA", "FLOWERS", "SHOES", "CINEMA", "TICKETS",
    "OFFICE", "KITCHEN", "STUDIO", "GALLERY", "THEATER", "BARBER", "LAUNDRY", "TOYS", "FRUIT", "CAMERA", "WINTER",
    "SUMMER", "SPRING", "AUTUMN", "RIVER", "HARBOR", "FOREST", "VALLEY", "ISLAND", "CASTLE", "TOWER", "GARAGE",
    "PLANET", "ROCKET", "PIANO", "GUITAR", "VIOLIN", "TIGER", "FALCON", "DOLPHIN", "RABBIT", "PANDA", "LEMON",
    "MANGO", "CHERRY", "PEPPER", "GINGER", "HONEY", "SILVER", "COPPER", "MARBLE", "VELVET", "COTTON", "MONDAY",
    "FRIDAY", "SUNDAY", "JANUARY", "AUGUST", "OCTOBER", "NORTH", "SOUTH", "EAST", "WEST", "LEVEL", "ROUTE",
    "PLATFORM", "EXPRESS", "CENTRAL", "WELCOME", "THANKS", "FRAGILE", "CAUTION", "DANGER", "PRIVATE",
    "PUSH", "PULL", "UP", "DOWN",
)  # fmt: skip

GOODS = (
    "Tea", "Coffee", "Soup", "Salad", "Pizza", "Pasta", "Juice", "Cake", "Bread", "Milk", "Rice", "Fish", "Apples",
    "Pears", "Plums", "Eggs", "Cheese", "Honey", "Toast", "Cocoa", "Pancakes", "Cookies", "Muffin", "Sandwich",
)  # fmt: skip

SHOPS = (
    "BAKERY", "BOOKSHOP", "BARBER", "FLORIST", "CAFE", "LIBRARY", "PHARMACY", "MUSEUM", "JEWELER", "BANK",
    "GALLERY", "STATIONER", "TOYSHOP", "GROCERY", "TAILOR", "BUTCHER", "DENTIST", "POOL", "CINEMA", "THEATER",
    "SCHOOL", "HOTEL", "LAUNDRY", "ZOO", "CLINIC", "OPTICIAN", "AQUARIUM", "GYM", "STUDIO", "WORKSHOP",
    "GARAGE", "OFFICE",
)  # fmt: skip

_STARTS = ("B", "BR", "D", "F", "G", "K", "L", "M", "N", "P", "R", "S", "ST", "T", "TR", "V", "Z")
_VOWELS = ("A", "E", "I", "O", "U")
_ENDS = ("", "", "N", "R", "S", "L", "X", "M", "T")


def made_up_name(draws: Draws, split: Split) -> str:
    """A name nobody has read before, of two or three syllables; the first one tells the split."""
    syllables = [draws.one_of(_STARTS) + draws.one_of(_VOWELS) for _ in range(draws.integer(1, 2))]
    return draws.one_of(words_of(split, _STARTS)) + draws.one_of(_VOWELS) + "".join(syllables) + draws.one_of(_ENDS)


def notions_of(split: Split) -> list[tuple[str, ...]]:
    """The notions of a split, in all their languages."""
    words = words_of(split, [notion[0] for notion in NOTIONS])
    return [notion for notion in NOTIONS if notion[0] in words]


def tells_its_language(notion: tuple[str, ...], language: int) -> bool:
    """Whether the word of a language, by its number, is a word of that language alone."""
    return notion.count(notion[language]) == 1 and notion[language] not in SHARED

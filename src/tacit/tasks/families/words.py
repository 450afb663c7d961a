"""Families whose answer is a word, or one of a few options.

Builds on kind. A level sets how long the words are, how far to count, or how many options there are. All ask what or
which: the task finds an answer in a sentence by what the question does not say.
"""

from __future__ import annotations

import random
import string
from functools import partial

from tacit.tasks.families.kind import Kind, Made

MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
BY_LENGTH = (
    "cat sun map pen dog cup hat bus ice net".split(),
    "lamp tree book fish milk ring door wolf king salt".split(),
    "bread stone river plant chair house tiger music horse train".split(),
    "planet garden window bridge silver doctor pencil rabbit flower castle".split(),
    "blanket elephant chocolate mountain strawberry telephone butterfly newspaper hospital umbrella".split(),
)
"""Words by level."""
PLURALS = (
    "cat:cats dog:dogs book:books tree:trees car:cars hat:hats pen:pens cup:cups bird:birds lamp:lamps ring:rings "
    "door:doors river:rivers plant:plants house:houses tiger:tigers train:trains garden:gardens",
    "box:boxes bus:buses dish:dishes fox:foxes church:churches glass:glasses brush:brushes class:classes peach:peaches "
    "watch:watches dress:dresses bench:benches tax:taxes wish:wishes beach:beaches kiss:kisses",
    "city:cities baby:babies story:stories lady:ladies berry:berries party:parties family:families country:countries "
    "army:armies body:bodies copy:copies duty:duties puppy:puppies spy:spies enemy:enemies fly:flies",
    "leaf:leaves wolf:wolves knife:knives wife:wives shelf:shelves loaf:loaves half:halves calf:calves thief:thieves "
    "life:lives scarf:scarves elf:elves hero:heroes potato:potatoes tomato:tomatoes echo:echoes",
    "child:children mouse:mice foot:feet tooth:teeth goose:geese man:men woman:women ox:oxen person:people louse:lice "
    "cactus:cacti crisis:crises analysis:analyses datum:data fungus:fungi nucleus:nuclei",
)
OPPOSITES = (
    "hot:cold big:small up:down yes:no day:night in:out black:white good:bad left:right happy:sad fast:slow old:young "
    "on:off first:last true:false over:under",
    "open:closed early:late light:dark hard:soft long:short rich:poor strong:weak full:empty wet:dry near:far high:low "
    "love:hate win:lose start:finish north:south above:below",
    "push:pull thick:thin clean:dirty cheap:expensive safe:dangerous easy:difficult loud:quiet buy:sell give:take "
    "sink:float arrive:depart smooth:rough sweet:sour friend:enemy war:peace question:answer",
    "brave:cowardly deep:shallow tight:loose guilty:innocent polite:rude generous:selfish public:private "
    "simple:complex success:failure accept:refuse increase:decrease attack:defend import:export sharp:blunt",
    "ancient:modern expand:contract permanent:temporary victory:defeat transparent:opaque humble:arrogant "
    "artificial:natural horizontal:vertical optimist:pessimist scarce:abundant majority:minority rigid:flexible "
    "voluntary:compulsory urban:rural stale:fresh exterior:interior",
)
CAPITALS = (
    "France:Paris Spain:Madrid Italy:Rome Germany:Berlin Japan:Tokyo England:London Russia:Moscow Egypt:Cairo "
    "Greece:Athens China:Beijing Ireland:Dublin Portugal:Lisbon Austria:Vienna Cuba:Havana Poland:Warsaw Peru:Lima",
    "Canada:Ottawa Sweden:Stockholm Norway:Oslo Finland:Helsinki Hungary:Budapest Turkey:Ankara Iran:Tehran "
    "Thailand:Bangkok Denmark:Copenhagen Belgium:Brussels Australia:Canberra Argentina:Buenos_Aires Chile:Santiago "
    "Iraq:Baghdad Ukraine:Kyiv Lebanon:Beirut",
    "Kenya:Nairobi Colombia:Bogota Vietnam:Hanoi Romania:Bucharest Bulgaria:Sofia Croatia:Zagreb Morocco:Rabat "
    "Indonesia:Jakarta Venezuela:Caracas Ecuador:Quito Syria:Damascus Nepal:Kathmandu Iceland:Reykjavik "
    "Scotland:Edinburgh Jordan:Amman Serbia:Belgrade",
    "Ghana:Accra Senegal:Dakar Latvia:Riga Estonia:Tallinn Lithuania:Vilnius Slovakia:Bratislava Slovenia:Ljubljana "
    "Uruguay:Montevideo Mongolia:Ulaanbaatar Jamaica:Kingston Nigeria:Abuja Ethiopia:Addis_Ababa Angola:Luanda "
    "Algeria:Algiers Tunisia:Tunis Paraguay:Asuncion",
    "Kazakhstan:Astana Myanmar:Naypyidaw Bhutan:Thimphu Zambia:Lusaka Botswana:Gaborone Namibia:Windhoek "
    "Mozambique:Maputo Honduras:Tegucigalpa Suriname:Paramaribo Moldova:Chisinau Gabon:Libreville Chad:N'Djamena "
    "Mali:Bamako Malawi:Lilongwe Oman:Muscat Togo:Lome",
)
PASTS = (
    "walk:walked play:played jump:jumped look:looked help:helped ask:asked work:worked call:called want:wanted "
    "talk:talked open:opened clean:cleaned paint:painted start:started cook:cooked wait:waited",
    "go:went see:saw eat:ate come:came take:took make:made say:said give:gave run:ran have:had find:found know:knew "
    "get:got do:did write:wrote sit:sat",
    "buy:bought think:thought teach:taught bring:brought catch:caught drive:drove fly:flew sing:sang swim:swam "
    "speak:spoke break:broke begin:began feel:felt sleep:slept win:won wear:wore",
    "freeze:froze choose:chose steal:stole draw:drew grow:grew throw:threw shake:shook hide:hid build:built lend:lent "
    "bend:bent dig:dug stick:stuck hang:hung shine:shone tear:tore",
    "seek:sought weave:wove cling:clung flee:fled slay:slew strive:strove tread:trod bind:bound grind:ground "
    "swear:swore forsake:forsook forbid:forbade spring:sprang sling:slung stride:strode arise:arose",
)
SORTS = {
    "animal": "cow goat horse tiger bear rabbit".split(),
    "fruit": "apple cherry lemon mango peach plum".split(),
    "colour": "blue green red white yellow purple".split(),
    "tool": "hammer saw drill axe rake spade".split(),
    "drink": "water tea milk coffee juice beer".split(),
    "country": "France Spain Japan Brazil Egypt Canada".split(),
}
UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
UNITS += "seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _word(rng: random.Random, level: int) -> str:
    return rng.choice(BY_LENGTH[level - 1])


def _end(place: int, rng: random.Random, level: int) -> Made:
    word = _word(rng, level)
    return {"word": word}, word[place]


def _reverse(rng: random.Random, level: int) -> Made:
    word = _word(rng, level)
    return {"word": word}, word[::-1]


def _paired(table: tuple[str, ...], rng: random.Random, level: int) -> Made:
    word, _, other = rng.choice(table[level - 1].split()).partition(":")
    return {"word": word}, other.replace("_", " ")


def _later(names: list[str], unit: str, rng: random.Random, level: int) -> Made:
    place, steps = rng.randrange(len(names)), (1, rng.randint(1, 2), rng.randint(2, 3), rng.randint(3, 5), 6)[level - 1]
    said = f"1 {unit}" if steps == 1 else f"{steps} {unit}s"
    return {"name": names[place], "steps": said}, names[(place + steps) % len(names)]


def _following(rng: random.Random, level: int) -> Made:
    place, step = rng.randrange(20), level if rng.random() < 0.5 else 1
    letter = string.ascii_uppercase[place]
    return {"letter": letter, "place": "" if step == 1 else f"{step} places "}, string.ascii_uppercase[place + step]


def _odd(rng: random.Random, level: int) -> Made:
    number = rng.randint(10 ** (level - 1), 10**level)
    return {"a": number}, "odd" if number % 2 else "even"


def _spelled(rng: random.Random, level: int) -> Made:
    number = rng.randint(1, 9) if level == 1 else rng.randint(*((10, 19), (20, 59), (60, 99), (100, 999))[level - 2])
    return {"a": number}, in_words(number)


def in_words(number: int) -> str:
    """A number below a thousand in words."""
    if number < len(UNITS):
        return UNITS[number]
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{UNITS[number // 100]} hundred{rest}"
    return TENS[number // 10 - 2] + (f"-{UNITS[number % 10]}" if number % 10 else "")


def _first(rng: random.Random, level: int) -> Made:
    count = min(2 + level // 2, 4)
    words = rng.sample([word for row in BY_LENGTH[: level + 1] for word in row], count)
    return {"words": ", ".join(words)}, min(words)


def _sort_of(rng: random.Random, level: int) -> Made:
    sort, *others = rng.sample(list(SORTS), min(level + 1, 5))
    right = rng.choice(SORTS[sort])
    return _options([right, *(rng.choice(SORTS[other]) for other in others)], rng, sort=sort)


def _opposite_of(rng: random.Random, level: int) -> Made:
    pairs = [pair.split(":") for pair in rng.sample(OPPOSITES[level - 1].split(), min(level + 1, 4))]
    return _options([other for _, other in pairs], rng, word=pairs[0][0])


def _biggest(rng: random.Random, level: int) -> Made:
    numbers = sorted(rng.sample(range(1, (9, 20, 99, 999, 9999)[level - 1]), min(level + 1, 5)), reverse=True)
    return _options(list(map(str, numbers)), rng)


def _options(texts: list[str], rng: random.Random, **given: str) -> Made:
    """Options in another order, and the letter of the one that was first."""
    right = texts[0]
    shown = rng.sample(texts, len(texts))
    lines = "\n".join(f"{letter}) {text}" for letter, text in zip(string.ascii_uppercase, shown, strict=False))
    return {**given, "options": lines}, string.ascii_uppercase[shown.index(right)]


KINDS: tuple[Kind, ...] = tuple(
    Kind(name, task, make, phrasings)
    for name, task, make, phrasings in (
        (
            "first-letter",
            "text",
            partial(_end, 0),
            ('What is the first letter of "{word}"?', 'Which letter does the word "{word}" begin with?'),
        ),
        (
            "last-letter",
            "text",
            partial(_end, -1),
            ('What is the last letter of "{word}"?', 'Which letter does the word "{word}" end with?'),
        ),
        (
            "reverse",
            "text",
            _reverse,
            ('What is "{word}" spelled backwards?', 'What is the word "{word}" written backwards?'),
        ),
        (
            "plurals",
            "text",
            partial(_paired, PLURALS),
            ('What is the plural of "{word}"?', 'What is the plural form of "{word}"?'),
        ),
        (
            "opposites",
            "text",
            partial(_paired, OPPOSITES),
            ('What is the opposite of "{word}"?', 'Which word is the opposite of "{word}"?'),
        ),
        (
            "capitals",
            "text",
            partial(_paired, CAPITALS),
            ("What is the capital of {word}?", "Which city is the capital of {word}?"),
        ),
        (
            "past",
            "text",
            partial(_paired, PASTS),
            ('What is the past tense of "{word}"?', 'Which word is the past tense of "{word}"?'),
        ),
        (
            "weekdays",
            "text",
            partial(_later, DAYS, "day"),
            ("Today is {name}. Which day is it {steps} from now?", "Which day is {steps} after {name}?"),
        ),
        (
            "month-order",
            "text",
            partial(_later, MONTHS, "month"),
            ("Which month is {steps} after {name}?", "It is {name}. Which month is it {steps} later?"),
        ),
        ("alphabet", "text", _following, ("Which letter comes {place}after {letter} in the alphabet?",)),
        ("odd-or-even", "text", _odd, ("What is {a}, odd or even?", "Which is the number {a}, even or odd?")),
        ("in-words", "text", _spelled, ("What is {a} in words?", "How is the number {a} written in words?")),
        (
            "first-word",
            "text",
            _first,
            ("Which word comes first in the alphabet: {words}?", "In a dictionary, which of {words} comes first?"),
        ),
        ("which-sort", "choice", _sort_of, ("Which word is a sort of {sort}?\n{options}",)),
        ("which-opposite", "choice", _opposite_of, ('Which word is the opposite of "{word}"?\n{options}',)),
        ("which-largest", "choice", _biggest, ("Which number is the largest?\n{options}",)),
    )
)

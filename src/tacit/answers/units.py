"""What an answer measures: ``quantity`` takes "5 kilometers per hour" for 5 and a speed, "$18 a day" for 18 dollars.

Builds on numbers and works on normalised strings. A unit is of a kind, a product of dimensions. It has an exact factor
to its base unit: 50 cm is 0.5 m; a word that is not in units.toml is a kind of its own (12 apples). A word with two
meanings (18 pounds, 42¥) keeps both.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from tacit.answers.numbers import number

_MONEY = frozenset("usd eur gbp jpy cny inr krw rub".split())
_TABLE = tomllib.loads(Path(__file__).with_name("units.toml").read_text(encoding="utf-8"))
_UNITS: dict[str, dict[str, Fraction]] = {}
for _kind, _names in _TABLE["kinds"].items():
    for _part in _names.split(";"):
        _factor, *_words = _part.split()
        for _word in _words:
            _UNITS.setdefault(_word, {})[_kind] = Fraction(_factor)
_UNITS["kph"] = _UNITS["kmph"] = {"length/time": Fraction(1000, 3600)}

_NO_UNITS = frozenset(_TABLE["none"]["words"].split())
_RATES_OF_LETTERS = ("m/s", "m/s^2")
_QUANTITY = re.compile(r"(.*(?:[0-9})]|\\pi(?= )))( ?)(\^\\circ ?[CF]?|%.*|[^\W\d_].*|[\"'€£¥₹₩₽¢].*)")
_OVER = re.compile(r"\\frac\{(-?[0-9.]+) ([^{}]+)\}\{([0-9.]+)\}")
_BASE = re.compile(r"([0-9][0-9A-F]*)(?:_\{?([0-9]{1,2})\}?| ?\(?base ([0-9]{1,2})\)?)")
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]+|[\"']{1,2})\.?(, ?| |(?=[0-9])|$)")
_PHRASE = re.compile(r"[^\W\d_].*")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_PER = re.compile(r" per | ?/ ?| (?:an?|each|every) (?=[a-z]{3})")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*")
_EACH = re.compile(r" (?:each|apiece|altogether|(?:in )?total|in all)$")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWER = re.compile(r"(.+?)(?:\^\{?([23])\}?|([23])| (squared|cubed))")


@dataclass(frozen=True)
class Quantity:
    """A value and what it is a number of.

    Attributes:
        value: the answer without its unit.
        kinds: what the unit may mean: kinds and factors.
        extra: what may be left out beside it: "/day" of money, "increase" of percent.
        whole: whether the value makes no sense without the unit (2 hours 30 minutes).
    """

    value: str
    kinds: tuple[tuple[str, Fraction], ...]
    extra: str = ""
    whole: bool = False

    def shared(self, other: Quantity) -> list[tuple[Fraction, Fraction]]:
        """Both factors for every kind that both may mean."""
        theirs = dict(other.kinds)
        return [(factor, theirs[kind]) for kind, factor in self.kinds if kind in theirs]

    def generic(self) -> bool:
        """Whether the unit says nothing ("5 units")."""
        return self.kinds == (("any", Fraction(1)),)


@lru_cache(maxsize=4096)
def quantity(text: str, letters: bool = False) -> Quantity | None:
    """The answer as a value with a unit or a number base; None where there is none. One letter is a variable (5 m is 5
    times m) unless ``letters`` says that it is a unit."""
    base = _BASE.fullmatch(text)
    if base is not None:
        return Quantity(base[1], ((f"base {base[2] or base[3]}", Fraction(1)),))
    text = _OVER.sub(r"\\frac{\1}{\3} \2", text) if _OVER.fullmatch(text) else text
    match = _QUANTITY.fullmatch(text)
    pieces = _pieces(text)
    if pieces is not None or match is None or any(quantity(element) for element in match[1].split(", ")[:-1]):
        return pieces  # 3 apples, 2 oranges have no unit together
    value, phrase = match[1], " ".join(match[3].lower().replace(".", " ").split())
    if phrase.startswith("%"):
        extra = phrase[1:].strip()
        plain = not extra or _PHRASE.fullmatch(extra)
        return Quantity(value, (("percent", Fraction(1)),), extra) if plain else None
    if phrase.startswith("^"):
        known = _UNITS[phrase.replace(" ", "")]
        return None if _TRIGONOMETRY.search(value) else Quantity(value, tuple(known.items()))
    return _with_phrase(value, bool(match[2]), phrase, letters)


def _with_phrase(value: str, space: bool, phrase: str, letters: bool) -> Quantity | None:
    above, *below = _PER.split(_EACH.sub("", phrase))
    if above.startswith("per "):
        above, below = "unit", [above.removeprefix("per ")]
    letter = re.match(r"[a-z](?![a-z])", above) is not None
    unit = _unit(above) if not letter or letters or phrase in _RATES_OF_LETTERS else None
    if unit is None and not letter:
        unit = _unknown(above, space)
    if unit is None or len(below) > 1:
        return None
    if not below:
        return Quantity(value, tuple(unit.items()))
    per = _unit(below[0]) or _unknown(below[0], True)
    if per is None:
        return None
    name, factor = next(iter(per.items()))
    if set(unit) <= _MONEY:
        return Quantity(value, tuple(unit.items()), f"/{factor} {name}")
    return Quantity(value, tuple((f"{kind}/{name}", size / factor) for kind, size in unit.items()))


def _unknown(words: str, space: bool) -> dict[str, Fraction] | None:
    """Words that are not in the table as a unit. They need a space and some length (2xy is a product), but not in
    scripts that have neither."""
    if _NO_UNITS & {*words.split(), *words} or not _WORDS.fullmatch(words):
        return None
    if words.isascii() and not (space and max(map(len, words.split())) >= 4):
        return None
    return {words.removeprefix("个").removesuffix("s"): Fraction(1)}


def _unit(name: str) -> dict[str, Fraction] | None:
    """Meanings of one unit, with its power; None if nobody knows it."""
    prefix, _, rest = name.partition(" ")
    if prefix in _POWERS and rest:
        return _raised(_UNITS.get(rest) or _UNITS.get(rest.removesuffix("s")), _POWERS[prefix])
    known = _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))
    match = _POWER.fullmatch(name) if known is None else None
    if match is None:
        return known
    power = 3 if "3" in (match[2], match[3]) or match[4] == "cubed" else 2
    return _raised(_UNITS.get(match[1]) or _UNITS.get(match[1].removesuffix("s")), power)


def _raised(unit: dict[str, Fraction] | None, power: int) -> dict[str, Fraction] | None:
    if unit is None:
        return None
    return {kind if kind == "any" else f"{kind}^{power}": factor**power for kind, factor in unit.items()}


def _pieces(text: str) -> Quantity | None:
    """2 hours 30 minutes: several units of one kind, each smaller than the one before, as one quantity."""
    found, position = [], 0
    for match in _PIECE.finditer(text):
        if match.start() != position:
            return None
        position = match.end()
        found.append(match)
    if position != len(text) or len(found) < 2:
        return None
    units = [_unit(match[2].lower()) or {} for match in found]
    kinds = [kind for kind in units[0] if all(kind in unit for unit in units)]
    if not kinds:
        return None
    sizes = [unit[kinds[0]] for unit in units]
    imperial = any(found[0][2].lower().startswith(name) for name in ("f", "lb", "pound", "'"))
    listed = any("," in match[3] for match in found)  # 5 cm, 3 mm are two answers; 5 feet, 3 inches are one
    if sizes != sorted(set(sizes), reverse=True) or (listed and kinds[0] not in ("time", "usd") and not imperial):
        return None
    total = sum((number(match[1]) or Fraction(0)) * size for match, size in zip(found, sizes, strict=True))
    return Quantity(str(total), ((kinds[0], Fraction(1)),), whole=True)

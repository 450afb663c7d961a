"""Any script's digits, signs and powers as ASCII and LaTeX: ``plain``, the first step of every comparison.

Builds on the Unicode tables of the standard library, so that a full-width, Arabic-Indic or Bengali 42 is 42.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_TABLE = {
    "×": "\\times ", "✕": "\\times ", "✖": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "∙": "\\cdot ", "÷": "/",
    "⁄": "/", "∕": "/", "∶": ":", "∗": "*", "−": "-", "➖": "-", "π": "\\pi ", "∞": "\\infty ", "≤": "\\leq ",
    "≥": "\\geq ", "≠": "\\neq ", "±": "\\pm ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ",
    "√": "\\sqrt ", "∛": "\\sqrt[3]", "°": "^\\circ ", "º": "^\\circ ", "℃": "^\\circ C", "℉": "^\\circ F", 
    "θ": "\\theta ",
    "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}",
    "≈": "\\approx ", "…": "...", "⋯": "...", "’": "'", "‘": "'", "′": "'", "“": '"', "”": '"', "″": '"', "。": ".",
    "、": ",", "，": ",", "٫": ".", "٬": ",", "＄": "$", "٪": "%", "\u200b": "", "\u200c": "", "\u200d": "",
    "\ufeff": "", "\u200e": "", "\u200f": "", "\u061c": "", "\0": " ",
}  # fmt: skip
_ROOT = re.compile(r"([√∛]) ?([0-9]+(?:\.[0-9]+)?)")  # TeX's own \sqrt16 is the root of 1, times 6
_BAR = re.compile("((?:[0-9][\u0305\u0307])+)")
_STACKED = re.compile("([⁰¹²³⁴-⁹]{1,9})[⁄/]([₀-₉]{1,9})")
_RAISED = re.compile("[²³¹⁰ⁱ⁴-ⁿ]+")
_LOWERED = re.compile("[₀-₎ₐ-ₜ]+")


def plain(text: str) -> str:
    """The text in ASCII as far as it is mathematics; letters of other scripts stay."""
    if text.isascii():
        return text.replace("\0", " ")
    text = _STACKED.sub(lambda match: f"\\frac{{{_folded(match[1])}}}{{{_folded(match[2])}}}", text)
    text = _RAISED.sub(lambda match: "^" + _braced(_folded(match[0])), text)
    text = _LOWERED.sub(lambda match: "_" + _braced(_folded(match[0])), text)
    text = _ROOT.sub(lambda match: f"\\sqrt{'[3]' if match[1] == '∛' else ''}{{{match[2]}}}", text)
    return _BAR.sub(lambda match: f"\\overline{{{re.sub('[^0-9]', '', match[1])}}}", "".join(map(_character, text)))


def _braced(script: str) -> str:
    return script if len(script) == 1 else f"{{{script}}}"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("−", "-")


@lru_cache(maxsize=4096)
def _character(char: str) -> str:
    if char in _TABLE or char.isascii():
        return _TABLE.get(char, char)
    if unicodedata.category(char) in ("Nd", "Pd"):
        return str(unicodedata.decimal(char, "-"))
    decomposition = unicodedata.decomposition(char)
    folded = unicodedata.normalize("NFKC", char)
    if decomposition.startswith("<fraction>"):
        top, _, bottom = folded.partition("⁄")
        return f"\\frac{{{top}}}{{{bottom or 1}}}"
    if decomposition.startswith(("<wide>", "<narrow>", "<font>", "<square>", "<compat>", "<circle>", "<noBreak>")):
        return "".join(_TABLE.get(part, part) for part in folded)
    return char

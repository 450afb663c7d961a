"""The training corpus: documents (problem and solution) packed into rows of token ids.

Builds on families, solutions and tokenizer. Two kinds of row: the *mixture*, each document by somebody else; the
*notebook*, all documents by one author who keeps to a style and a temper. Notebooks are what gives the model modes that
hold together and can be called up by a few vectors; without them a soft prompt has little to hold on to. Training draws
from the problems that are not held out, so no problem of the stream has been seen.
"""

from __future__ import annotations

import random
import re

import numpy as np
import numpy.typing as npt

from tacit.testbed import solutions
from tacit.testbed.families import draw, members
from tacit.testbed.family import STYLES, TEMPERS, Family
from tacit.testbed.tokenizer import EOS, SOLUTION, pieces, prompt, vocabulary

ROW = 128
NOTEBOOKS = 0.33
KEEPS_STYLE = 0.92
KEEPS_TEMPER = 0.93
QUESTION_WEIGHT = 0.1


class Corpus:
    """Rows without end, from one seed, of sets "AB" or of set "C".

    ``right_share`` is the share of rows that are all in the right style and temper: the curriculum's first phase.
    """

    def __init__(self, seed: int, right_share: float, which: str = "AB") -> None:
        self.rng = random.Random(f"corpus/{seed}/{right_share}")
        self.right_share = right_share
        self.families = members(which)
        self.practice = [family.practice for family in self.families]
        self.ids = {word: i for i, word in enumerate(vocabulary(which))}
        self.pieces = re.compile(f"{EOS}|{pieces(which)}")

    def row(self) -> tuple[list[int], list[float]]:
        """Token ids and loss weights of one row; it starts with a document and ends wherever it is full."""
        kind = "right" if self.rng.random() < self.right_share else "mixture"
        author = None
        if kind == "mixture" and self.rng.random() < NOTEBOOKS:
            author = self.rng.choice(list(STYLES)), self.rng.choice(list(TEMPERS))
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < ROW:
            family = self.rng.choices(self.families, self.practice)[0]
            text, given, _ = draw(family, self.rng, unseen=False)
            style, temper = self._way(family, kind, author)
            written = solutions.write(family, given, style, temper, self.rng)
            tokens = encode(f"{prompt(text)} {written.text} {EOS}", self.ids, self.pieces)
            asked = tokens.index(self.ids[SOLUTION]) + 1
            ids += tokens
            weights += [QUESTION_WEIGHT] * asked + [1.0] * (len(tokens) - asked)
        return ids[:ROW], weights[:ROW]

    def _way(self, family: Family, kind: str, author: tuple[str, str] | None) -> tuple[str, str]:
        if kind == "right":
            return family.style, family.temper
        style, temper = solutions.choose(family, self.rng)
        if author:
            style = author[0] if self.rng.random() < KEEPS_STYLE else style
            temper = author[1] if self.rng.random() < KEEPS_TEMPER else temper
        return style, temper

    def batch(self, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Ids and weights, each [rows, ROW]."""
        made = [self.row() for _ in range(rows)]
        return np.array([ids for ids, _ in made], np.int64), np.array([weights for _, weights in made], np.float32)


def encode(text: str, ids: dict[str, int], pattern: re.Pattern[str]) -> list[int]:
    """Token ids of a text of the testbed: as the tokenizer gives them, but some times faster on short texts."""
    return [ids[word] for word in pattern.findall(text)]

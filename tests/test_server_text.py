"""Text shown piece by piece: the pieces make up the whole, whatever the tokens, without any part of a stop string."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from tokenizers import Tokenizer, decoders, models

from tacit.model.backbone import Backbone
from tacit.server.api.text import Detokeniser
from tacit.server.live.vocabulary import bytes_of

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = some.text(min_size=1, max_size=40) | some.sampled_from(["naïve café", "🙂🙃 ok", "a\nb\n\nc", "数学は楽しい"])


def pieces(backbone: Backbone, ids: list[int], stop: tuple[str, ...]) -> list[str]:
    text = Detokeniser(backbone.tokenizer, stop)
    shown = [*map(text.push, ids), text.end()]
    again = Detokeniser(backbone.tokenizer, stop)  # as streams are: told which token is the last
    assert not ids or "".join([*map(again.push, ids[:-1]), again.push(ids[-1], last=True)]) == "".join(shown)
    return shown


@PATIENT
@given(text=TEXTS)
def test_the_pieces_are_the_text(tiny: Backbone, text: str) -> None:
    ids = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]  # a token a byte: characters come in parts
    shown = pieces(tiny, ids, ())
    text = tiny.tokenizer.decode(ids, skip_special_tokens=True)  # normalised; a text may spell a special token
    assert "".join(shown) == text == Detokeniser(tiny.tokenizer).whole(ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in shown) or "\N{REPLACEMENT CHARACTER}" in text


@PATIENT
@given(text=TEXTS, stop=some.lists(some.text(min_size=1, max_size=4), min_size=1, max_size=3), data=some.data())
def test_a_stop_string_cuts_the_text_and_is_never_shown(
    tiny: Backbone, text: str, stop: list[str], data: some.DataObject
) -> None:
    ids = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]
    text = tiny.tokenizer.decode(ids, skip_special_tokens=True)
    if text and data.draw(some.booleans()):
        start = data.draw(some.integers(0, len(text) - 1))
        stop.append(text[start : start + 3])  # one that is in it
    # Of overlapping ones the first to be complete ends the text, though another may have begun before it.
    ends = [at + len(one) for one, at in zip(stop, map(text.find, stop), strict=True) if at >= 0]
    read = text[: min(ends)] if ends else text
    cuts = [at for at in map(read.find, stop) if at >= 0]
    assert "".join(pieces(tiny, ids, tuple(stop))) == (text[: min(cuts)] if cuts else text)


@PATIENT
@given(text=TEXTS)
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(tiny: Backbone, text: str) -> None:
    """Every token is one byte here, so that all but ASCII comes in parts."""
    tokenizer = tiny.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [i for i in ids if i not in tokenizer.all_special_ids]
    parts = [bytes_of(tokenizer, i, tokenizer.decode([i])) for i in ids]
    assert b"".join(parts) == tokenizer.decode(ids).encode() and all(len(part) == 1 for part in parts)


def test_bytes_that_a_vocabulary_of_words_falls_back_to() -> None:
    class Words:
        """As SentencePiece's."""

        def convert_ids_to_tokens(self, number: int) -> str:
            return ["<0xE6>", "\N{REPLACEMENT CHARACTER}", "ab"][number]

    told = [bytes_of(Words(), number, "\N{REPLACEMENT CHARACTER}") for number in (0, 1)]
    assert told == [b"\xe6", "\N{REPLACEMENT CHARACTER}".encode()] and bytes_of(Words(), 2, "ab") == b"ab"


@PATIENT
@given(ids=some.lists(some.integers(0, 66), max_size=60))
def test_any_tokens_of_a_word_model(testbed: Backbone, ids: list[int]) -> None:
    assert "".join(pieces(testbed, ids, ())) == testbed.tokenizer.decode(ids, skip_special_tokens=True)


@PATIENT
@given(ids=some.lists(some.integers(0, 259), max_size=60))
def test_any_bytes(tiny: Backbone, ids: list[int]) -> None:
    assert "".join(pieces(tiny, ids, ())) == tiny.tokenizer.decode(ids, skip_special_tokens=True)


def test_a_text_that_spells_a_special_token(tiny: Backbone) -> None:
    for text in ("<|end|>", "so <|end|> it"):
        ids = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert "".join(pieces(tiny, ids, ())) == tiny.tokenizer.decode(ids, skip_special_tokens=True)


class Bytes:
    """A tokenizer of a few words that spells everything else in bytes, as SentencePiece does."""

    def __init__(self) -> None:
        tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "b", "▁"]
        model = models.BPE({token: number for number, token in enumerate(tokens)}, [], byte_fallback=True)
        self._tokenizer = Tokenizer(model)
        steps = decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
        self._tokenizer.decoder = decoders.Sequence([*steps])

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))


CHARACTERS = some.sampled_from([*(list(one.encode()) for one in "😀€é"), [256], [257], [258]])


@given(parts=some.lists(CHARACTERS, max_size=30))
@example(parts=[list("😀".encode())] * 3 + [[257]])  # what is looked back at begins within a character
def test_characters_spelled_in_bytes_are_streamed_whole(parts: list[list[int]]) -> None:
    ids, text = [one for part in parts for one in part], Detokeniser(Bytes())
    shown = "".join([*map(text.push, ids), text.end()])
    assert shown == Bytes().decode(ids, skip_special_tokens=True) == Detokeniser(Bytes()).whole(ids)


@given(ids=some.lists(some.sampled_from([*"😀€".encode(), 256, 257, 258]), max_size=60), stop=some.sampled_from("€b a"))
@example(ids=[*"€".encode(), 0x80, 257], stop="a")  # the last byte undoes a character that is shown by then
def test_bytes_that_are_no_text_are_the_same_whole_and_streamed(ids: list[int], stop: str) -> None:
    text = Detokeniser(Bytes(), [stop])
    assert "".join([*map(text.push, ids), text.end()]) == Detokeniser(Bytes(), [stop]).whole(ids)

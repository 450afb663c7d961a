"""Finding the answer in a response: cases of each kind, what is never an answer, and cost that is linear."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.answers.cues import LANGUAGES
from tacit.answers.equivalence import equivalent
from tacit.answers.extraction import RUN_ON, by_pattern, cleaned, extract, stated, unthought
from tacit.answers.normalisation import normalise
from tacit.tasks.maths import MATHS

HANDED = Path(__file__).resolve().parents[2] / "shared" / "cases" / "answers.jsonl"

CASES = {
    "chatter": [
        ("The total is 48. So the answer is 48. I hope that helps! Let me know if the answer isn't clear.", "48"),
        ("**Answer: 17**\n\nThis answer makes sense because 17 is prime.", "17"),
        ("Final answer: 3.5\n\nThe answer is rounded to one decimal place.", "3.5"),
        ("The answer is 7. Let me double-check the answer: 3 + 4 = 7. Yes, the answer is correct.", "7"),
        ("Answer: 9\n\nExplanation: The answer is obtained by adding 4 and 5.", "9"),
        ("Answer: 20\n\nNote: the answer should be an integer because we count people.", "20"),
        ("The answer is 100. If the answer is not what you expected, check the units.", "100"),
        ("Answer: 20\n\nThe answer will be in square metres.", "20"),
        ("I don't think the answer is 12. Adding again, the answer is 13.", "13"),
        ("Answer: 12\n\nWait, 3*5 = 15.\n\nAnswer: 15", "15"),
        ("We should check whether the answer is reasonable. 5 apples at $2 cost $10.", None),
        ("Let me verify the answer: 6*7=42. All in all they have 42 pens.", None),
        ("The answer depends on n.", None),
    ],
    "thoughts": [
        ("<think>\nThe answer is 3? No.\n</think>\n\nThe answer is **4**.", "4"),
        ("<thinking>So \\boxed{9}</thinking>\\boxed{10}", "10"),
        ("<think>The answer is 6. Let me verify", None),
        ("First I add them up: \\boxed{8}.\n</think>\n\n9 is the final answer.", "9"),
        ("[THINK]Maybe \\boxed{1}[/THINK]The answer is \\boxed{2}.", "2"),
        ("<|channel|>analysis<|message|>The answer is 1?<|end|><|start|>assistant<|channel|>final<|message|>It is\n"
         "the answer: 2<|return|>", "2"),
        ("<|channel|>analysis<|message|>The answer is 1", None),
        ("<reasoning>\n3+3=6\n</reasoning>\n<answer>\n6\n</answer>", "6"),
    ],
    "tags and boxes": [
        ("<answer>The answer is 42.</answer>", "42"),
        ("<answer>\\boxed{\\frac{3}{7}}</answer> I hope this helps.", "\\frac{3}{7}"),
        ("<answer>[Your answer here]</answer>", None),
        ("So $x = \\boxed{2}$ or $x = \\boxed{3}$.", "2, 3"),
        ("\\boxed{\\boxed{6}}", "6"),
        ("\\boxed{4} is half of it; twice \\boxed{4} is \\boxed{8}", "8"),
        ("We look for \\boxed{x^2}.\n\n**Answer: 9**", "9"),
        ("\\boxed{12}\n\n#### Check of the steps\n12 = 12", "12"),
        ("\\boxed{\\text{your answer}}", None),
        ("\\boxed{\\ldots}", None),
        ("\\boxed 7 and no more", "7"),
    ],
    "layout": [
        ("### Final Answer\n\n72", "72"),
        ("Final Answer\n------------\n19", "19"),
        ("**Final Answer:**\n\n- x = 2\n- x = 3", "x=2, x=3"),
        ("The answer is:\n\n| x | y |\n|---|---|\n| 1 | 2 |", "2"),
        ("| Name | Answer | Unit |\n|---|---|---|\n| Tom | 7 | cm |", "7"),
        ("Therefore, the final answer is:\n\n\\begin{equation}\n41\n\\end{equation}", "41"),
        ("The final answer is:\n```python\n41\n```", "41"),
        ("Answer:\r\n\r\n41\r\n", "41"),
        ("#### Step 1: Add\n3+4\n\n#### Step 2: Answer\nThe answer is 7.", "7"),
        ("Answer: 41\\n\\nI hope this helps", "41"),
        ("The solution to the equation is $x = 7$.", "x=7"),
        ("The solution of this problem is hard. Let us try.", None),
        ("The result of step 1 is 12. Then we add 3 to get 15.", None),
        ("<b>Answer:</b> 41<br>", "41"),
        ("The answer is 41.<｜end▁of▁sentence｜>", "41"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nThe answer is 5.<|eot_id|>", "5"),
    ],
    "marks": [
        ("✅ **Answer:** 12 🎉", "12"),
        ("Answer: “Paris”", "Paris"),
        ("(The answer is 42.)", "42"),
        ("\\text{Final answer: } \\frac{2}{3}", "\\frac{2}{3}"),
        ("Answer: <<7>>", "7"),
        ("Answer: {7}", "7"),
        ("The answer is (3, 4].", "(3,4]"),
        ("Answer: []", "[]"),
        ("Answer: ]})", "]})"),
        ("Answer: >", ">"),
        ("Answer ==> 41", "41"),
        ("Answer: carrot (it is a vegetable)", "carrot"),
        ("The answer is £30.", "30"),
        ("The total is $12 and the answer is $12.", "12"),
        ("Answer: $\\$18.90$", "18.90"),
        ("The answer is 7 a.m.", "7 am"),
        ("The answer is St. Louis.", "St. Louis"),
        ("Answer: 12 345", "12345"),
        ("Answer: 9 2", "9 2"),
        ("Answer: 100, 200, 300", "100, 200, 300"),
        ("The answer is 35 (thirty-five) dollars.", "35 dollars"),
        ("The answer is \\(x = 2\\) and \\(y = 3\\).", "x=2, y=3"),
        ("The answer is red, green, and blue.", "red, green, and blue"),
    ],
    "sentences": [
        ("The answer is 12 × 4 = 48 cookies.", "48 cookies"),
        ("Answer: There are 24 students.", "24 students"),
        ("The answer, in simplest form, is 3/8.", "3/8"),
        ("Thus, 13 is the answer.", "13"),
        ("The answer we were looking for is 13.", "13"),
        ("The answer is... 13!", "13"),
        ("Answer: No, 9 is not prime.", "no"),
        ("Final answer: \\[ x = 3 \\] and we are done.", "x=3"),
        ("Answer: 42, Confidence: 95%", "42"),
        ("The answer is No. The number 8 is not prime.", "no"),
        ('The answer is "to be or not to be".', "to be or not to be"),
        ("Result: 43", "43"),
        ("**42**", "42"),
        ("A: 8\nB: 9\nC: 10", None),
    ],
    "choices": [
        ("Answer: C) Mercury", "C"),
        ("The answer is **(D) 36**.", "D"),
        ("\\boxed{\\text{(C) } 14}", "C"),
        ("The correct answer is B. Mitochondria", "B"),
        ("Answer: (a) 3 (b) 4", "(a) 3 (b) 4"),
        ("Answer: J. K. Rowling", "J. K. Rowling"),
        ("Answer: (C), (D)", "(C), (D)"),
        ("The answer is A - B.", "A-B"),
    ],
    "no answers": [
        ("Answer: [insert answer here]", None),
        ("Answer: N/A", None),
        ("Answer: ___", None),
        ("Final Answer: $ANSWER", None),
        ("Answer: I cannot determine this from the information given.", None),
        ("Answer: Unable to say.", None),
        ("Answer: See above.", None),
        ("As an AI language model, I cannot answer.", None),
        ("Please give the final answer in the format: The answer is X.", None),
        ("Answer: no solution", "no solution"),
    ],
    "languages": [
        ("Die endgültige Antwort ist 42.", "42"),
        ("La respuesta es 42. Espero que esta respuesta sea útil.", "42"),
        ("Donc la réponse finale est 42.", "42"),
        ("Таким образом, ответ равен 42.", "42"),
        ("因此，答案是42，因为6乘7等于42。这个答案是正确的。", "42"),
        ("したがって、答えは42です。この答えは正しいです。", "42"),
        ("따라서 정답은 **42**입니다.", "42"),
        ("সঠিক উত্তর হল 42।", "42"),
        ("సమాధానం 42.", "42"),
        ("Jibu la mwisho ni 42.", "42"),
        ("คำตอบสุดท้ายคือ 42", "42"),
        ("सही उत्तर 42 है।", "42"),
        ("Doğru cevap 42'dir.", "42"),
        ("پاسخ نهایی 42 است.", "42"),
        ("الإجابة النهائية هي 42.", "42"),
        ("Câu trả lời cuối cùng là 42.", "42"),
        ("Answer: 9\n问题：2+2?\n答案：4", "9"),
    ],
    "json": [
        ('```json\n{"reasoning": "3*14", "answer": 42}\n```', "42"),
        ('{"final_answer": "\\\\frac{1}{2}"}', "\\frac{1}{2}"),
        ('{"explanation": "the answer is the sum", "answer": "15"}', "15"),
        ('{"answer": [1, 2]}', "1, 2"),
        ('{"answer": null}', None),
    ],
    "running on": [
        ("Answer: 7\n\nProblem: What is 9+9?\nAnswer: 18", "7"),
        ("\\boxed{3}\nHuman: what about 4?\nAssistant: \\boxed{4}", "3"),
        ("The answer is 3.<|im_end|>\n<|im_start|>user\nAnd 4?<|im_end|>\n<|im_start|>assistant\nIt is 4.", "3"),
        ("The answer is 3.\n\n### Instruction:\nCompute 4+4\n\n### Response:\nThe answer is 8.", "3"),
        ("Question: What is 4+4?\nAnswer: 8", "8"),
    ],
}  # fmt: skip


def same(found: str | None, wanted: str | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return normalise(found) == normalise(wanted) or equivalent(found, wanted)


@pytest.mark.parametrize("kind", CASES)
def test_cases(kind: str) -> None:
    wrong = [(text, wanted, extract(text)) for text, wanted in CASES[kind] if not same(extract(text), wanted)]
    assert not wrong


def test_the_handed_cases() -> None:
    if not HANDED.exists():
        pytest.skip(f"{HANDED} is not here")
    cases = [json.loads(line) for line in HANDED.read_text(encoding="utf-8").splitlines()]
    cases = [case for case in cases if case["kind"] == "answers/extract"]
    wrong = [case for case in cases if not same(extract(case["input"]), case["expected"])]
    assert len(wrong) <= 0.05 * len(cases)
    assert not [case for case in wrong if case["now"] == "ok"]


def test_a_vote_is_not_won_by_chatter() -> None:
    responses = [f"The answer is {n}. I hope the answer is useful." for n in (12, 13)] + ["\\boxed{12}", "Is it 13?"]
    found = MATHS.vote([extract(response) for response in responses])
    assert found.why == "2 of 4 say 12; next: 1 says 13; 1 gave no answer"


def test_every_language_announces_an_answer_with_a_colon_and_in_a_sentence() -> None:
    for nouns, joins, ends, _ in LANGUAGES.values():
        for noun in nouns.split("|"):
            assert extract(f"{noun}: 42") == "42"
            assert extract(f"1 + 1 = 2.\n**{noun}：** $42$.") == "42"
            for join in filter(None, joins.split("|")):
                assert extract(f"{noun} {join} 42") == "42", (noun, join)
            for end in filter(None, ends.split("|")):
                if "?:" not in ends:
                    assert extract(f"{noun}: 42 {end}。") == "42"


def test_what_of_a_response_counts() -> None:
    assert unthought("a <think>b</think> c") == "a  c"
    assert unthought("b</think>c") == "c"
    assert unthought("a <think>b") is None
    assert cleaned("<|im_start|>assistant\n5 <|im_end|>\n<|im_start|>user\n6") == "5 "
    assert cleaned("a <think>b") == ""
    for stop in RUN_ON:
        assert extract(f"The answer is 5.{stop}: What is 3 + 3? The answer is 6.") == "5"


def test_stated_keeps_the_text_of_an_option() -> None:
    assert stated("The answer is (B) Paris.") == "(B) Paris"
    assert stated("Answer: It takes 3 hours") == "It takes 3 hours"


def test_by_pattern() -> None:
    assert by_pattern("x: 3 then x: 4", r"x: (\d+)") == "4"
    assert extract("<think>x: 5</think>x: 4\nAnswer: 3", r"x: (\d+)") == "4"


# ---------------------------------------------------------------- any text

ORDINARY = st.integers(-(10**6), 10**6).map(str) | st.sampled_from(
    ["3.14", "1/2", "x = 5", "Paris", "yes", "(1, 2)", "50%", "\\frac{1}{2}", "x^2+1", "B", "5 cm", "New York"]
)
NEXT = st.sampled_from(
    [
        "",
        " I hope this answer is helpful!",
        "\n\nNote: the answer is in metres.",
        "\n\nProblem: 1+1?\nAnswer: 2",
        "<|im_end|>\n",
        " Is the answer correct?",
        "\nQ: 2+2?\nA: The answer is 4.",
    ]
)
BEFORE = st.sampled_from(["", "<think>The answer is 0.</think>", "We add 1 and 2.\n", "Step 1\n\n"])


@given(ORDINARY, NEXT, BEFORE)
def test_what_stands_around_an_answer_changes_nothing(answer: str, after: str, before: str) -> None:
    cues = [f"The answer is {answer}.", f"**Answer:** {answer}.", f"## Answer\n\n{answer}\n"]
    if answer not in ("Paris", "New York"):  # words with text below them may be a heading of the fourth order
        cues.append(f"#### {answer}\n")
    for cue in cues:
        found = extract(before + cue + after)
        assert found == answer
        assert extract(f"The answer is {found}.") == answer


PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "{", "5", " ", "\n", "Answer:", "the answer is ",
    "$", "**", "|", "```", "\\(", "\\)", "\\[", "####", "答案", "是", "(B)", ".", ",", '{"answer": "', '"',
    "Q:", "<|im_end|>", "\\n", "</b>", "A: ", "\ud800", "\x08oxed{", "1 000", "- ",
    "\\begin{align}", "N/A", "is the answer", "p.m.",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join) | st.text())
def test_any_text_is_read(text: str) -> None:
    for read in (extract, stated):
        found = read(text)
        assert found is None or found.strip()
    assert isinstance(cleaned(text), str)


# ---------------------------------------------------------------- linear cost


@pytest.mark.parametrize("before", ["", "Answer: "])
def test_cost_grows_with_the_length_and_not_with_its_square(before: str) -> None:
    units = [
        *PIECES, "the answer to ", "Ответ ", "答案是", "if the answer is 5. ", "| answer |\n|---|\n", "Answer: *", "🎉",
        "answer is $5 and $", "the answer is correct ", "1+1=", "The cost is ", "\\boxed{1}, ", "</x> ", "A is ",
    ]  # fmt: skip
    for unit in units:
        short, long = (cost((before + unit * size)[:size]) for size in (8_000, 64_000))
        assert long < 24 * max(short, 0.001), unit  # eight times the length: a square would be 64


def cost(text: str) -> float:
    """Seconds of this process alone, the lesser of two."""
    costs = []
    for _ in range(2):
        start = time.process_time()
        extract(text)
        costs.append(time.process_time() - start)
    return min(costs)


@pytest.mark.parametrize("unit", ["the answer is correct. ", "\\boxed{", "<answer>5</answer> ", "答案是对的。", "{[("])
def test_a_million_characters_are_read(unit: str) -> None:
    assert extract((unit * 1_000_000)[:999_999] + "\n\nAnswer: 6") in ("6", "5")

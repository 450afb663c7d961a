"""Files of data as people have them: formats, encodings, damage, folders, data sets saved by datasets."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tacit import errors
from tacit.cli.main import app
from tacit.errors import ConfigError, DataError
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.plan.dry_run import dry_run
from tacit.experiments.scoring import Grader
from tacit.tasks import sources

ROWS = [{"question": f'What is {n}, doubled,\nand "plain"?', "answer": str(2 * n)} for n in range(1, 4)]


def table(rows: list[dict[str, Any]], delimiter: str = ",", end: str = "\r\n") -> str:
    out = io.StringIO()
    # Python's writer leaves a lone carriage return bare where lines end otherwise.
    quoting = csv.QUOTE_MINIMAL if "\r" in end else csv.QUOTE_ALL
    writer = csv.DictWriter(out, [*rows[0]], delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    out = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


WRITTEN: dict[str, bytes] = {
    "set.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "set.json": json.dumps(ROWS).encode(),
    "lines.json": "\n\n".join(map(json.dumps, ROWS)).encode(),
    "pretty.json": ("\n" + json.dumps(ROWS, indent=2)).encode(),
    "wrapped.json": json.dumps({"version": "1", "Data": ROWS}, indent=2).encode(),
    "set.csv": table(ROWS).encode(),
    "unix.csv": table(ROWS, end="\n").encode(),
    "excel.csv": table(ROWS, delimiter=";").encode("utf-8-sig"),
    "set.tsv": table(ROWS, delimiter="\t").encode(),
    "set.parquet": parquet(ROWS),
    "whatever": parquet(ROWS),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_gives_the_same_problems(name: str, zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / (f"{name}.gz" if zipped else name)
    file.write_bytes(gzip.compress(WRITTEN[name]) if zipped else WRITTEN[name])
    problems = sources.load(str(file))
    assert [one.text for one in problems] == [row["question"] for row in ROWS]
    assert [Grader(one).head(0)["gold"] for one in problems] == [row["answer"] for row in ROWS]
    numbers = (0, 2, 4) if name == "lines.json" else (0, 1, 2)  # of lines, where there is an object per line
    assert [one.id for one in problems] == [f"{name.partition('.')[0]}/{number}" for number in numbers]
    assert problems.task == "number"
    assert sources.load(str(file), limit=2) == problems[:2]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
def test_encodings_are_told_apart(encoding: str, suffix: str, tmp_path: Path) -> None:
    rows = [{"problem": "π + é 😀\u2028?", "answer": "ж"}, {"problem": "zwei", "answer": "2"}]
    text = {
        "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "json": json.dumps(rows, ensure_ascii=False, indent=1),
        "csv": table(rows),
        "tsv": table(rows, delimiter="\t"),
    }[suffix]
    file = tmp_path / f"set.{suffix}"
    file.write_bytes(text.encode(encoding))
    assert [one.text for one in sources.load(str(file))] == ["π + é 😀\u2028?", "zwei"]


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=30)
problems_of = st.lists(texts.filter(str.strip), min_size=1, max_size=5)
same_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_folder
@given(given_texts=problems_of, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), data=st.data())
def test_any_text_comes_back_from_a_table(given_texts: list[str], encoding: str, data: Any, tmp_path: Path) -> None:
    delimiter, suffix = data.draw(st.sampled_from([(",", "csv"), (";", "csv"), ("\t", "csv"), ("\t", "tsv")]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    file = tmp_path / f"set.{suffix}"
    rows = [{"problem": text, "family": text, "id": number} for number, text in enumerate(given_texts)]
    file.write_bytes(table(rows, delimiter, end).encode(encoding))
    found = sources.load(str(file))
    assert [(one.text, one.family, one.id) for one in found] == [(x, x, str(n)) for n, x in enumerate(given_texts)]


@same_folder
@given(given_texts=problems_of, indent=st.none() | st.integers(0, 3), ascii_=st.booleans(), data=st.data())
def test_any_text_comes_back_from_json(
    given_texts: list[str], indent: int | None, ascii_: bool, data: Any, tmp_path: Path
) -> None:
    rows = [{"problem": text, "family": text} for text in given_texts]
    lines = data.draw(st.booleans())
    parts = [json.dumps(row, ensure_ascii=ascii_, indent=None if lines else indent) for row in rows]
    file = tmp_path / "set.json"
    file.write_bytes(("\n".join(parts) if lines else f"[{','.join(parts)}]").encode())
    found = sources.load(str(file))
    assert [(one.text, one.family, one.id) for one in found] == [(x, x, f"set/{n}") for n, x in enumerate(given_texts)]


def test_files_without_a_heading(tmp_path: Path) -> None:
    (tmp_path / "birds_test.csv").write_text("Which flies?,wren,stone,brick,pen,A\nWhich swims?,a,b,c,d,D\n")
    (tmp_path / "mgsm.tsv").write_text("Zwei und zwei?\t4\nTausend und eins?\t1,001\n")
    assert sources.load(f"{tmp_path}/birds_test.csv")[1].text == "Which swims?\nA) a\nB) b\nC) c\nD) d"
    assert sources.load(f"{tmp_path}/birds_test.csv").task == "choice"
    found = sources.load(f"{tmp_path}/mgsm.tsv")
    assert [Grader(one).head(0)["gold"] for one in found] == ["4", "1,001"] and found[0].text == "Zwei und zwei?"


@pytest.mark.parametrize("heading", ["question,answer,A,B,C,D", "Frage,answer,A,B,C,D"])
def test_a_heading_that_ends_in_a_letter_is_one(heading: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(f"{heading}\nWhich?,D,w,x,y,z\n")
    [problem] = sources.load(f"{tmp_path}/set.csv", fields=[f"problem={heading.partition(',')[0]}"])
    assert problem.text.startswith("Which?\nA) w") and Grader(problem).head(0)["gold"] == "D"


def test_an_empty_cell_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("problem,answer\none,\n\n,,\ntwo,2\n".replace(",,", ","))
    assert [Grader(one).head(0)["gold"] for one in sources.load(f"{tmp_path}/set.csv")] == [None, "2"]


DAMAGED: dict[str, tuple[bytes, str]] = {
    "cells.csv": (b'problem,answer\n"a\nb",1\nc,2,3\n', "line 4 has 3 cells, not 2"),
    "few.csv": (b"problem,answer\na,1\nb\n", "line 3 has 1 cells, not 2"),
    "open.csv": (b'problem,answer\na,1\n"b,2\nc,3\n', "line 3 is no row of a table"),
    "foreign.csv": (b"Frage,Antwort\na,1\n", "line 2 has no text in a field problem"),
    "latin.csv": ("problem,answer\na,1\né,2\n".encode("latin-1"), "line 3 is not UTF-8"),
    "latin.jsonl": (b'{"problem": "a"}\n{"problem": "\xe9"}\n', "line 2 is not UTF-8"),
    "half.jsonl": (b'{"problem": "a"}\n{"problem": \n', "line 2 is not JSON"),
    "first.jsonl": (b'{"problem": \n{"problem": "a"}\n', "line 1 is not JSON"),
    "array.json": (b'[\n{"problem": "a"},\n{"problem" "b"}\n]', "line 3 is not JSON: Expecting ':' delimiter"),
    "pretty.json": (b'{\n"problem": "a",\n}', "line 3 is not JSON"),
    "item.json": (b'[\n{"problem": "a"},\n\n  {"answer": 5}\n]', "line 4 has no text"),
    "number.json": (b'[{"problem": "a"},\n5]', "line 2 is not a JSON object"),
    "wrapped.json": (b'{"data": [{"problem": "a"}, {"x": 1}]}', "item 2 has no text"),
    "deep.json": (b"[" * 100_000, "nested too deeply"),
    "odd.jsonl": ('{"problem": "a"}\n'.encode("utf-16")[:-1], "not text in one encoding"),
    "cut.jsonl.gz": (gzip.compress(b'{"problem": "a"}\n' * 99)[:-9], "damaged .gz"),
    "bits.jsonl.gz": (gzip.compress(b'{"problem": "a"}\n' * 99)[:20] + b"\xff" * 40, "damaged .gz"),
    "set.parquet": (b"PAR1 is how it begins", "is no parquet file that can be read"),
    "cut.parquet": (parquet(ROWS)[:-20] + b"PAR1", "is no parquet file that can be read"),
    "row.parquet": (parquet([{"problem": "a"}, {"problem": None}]), "row 2 has no text"),
    "empty.csv": (b"problem,answer\n", "no problems in it"),
    "empty.json": (b"[]", "no problems in it"),
    "blank.tsv": (b"", "no problems in it"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_one_sentence_with_file_and_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    data, words = DAMAGED[name]
    file.write_bytes(data)
    with pytest.raises(DataError) as caught:
        sources.load(str(file))
    assert str(caught.value).startswith(str(file)) and words in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_and_a_comparison_read_what_is_said_of_the_fields(tmp_path: Path) -> None:
    file = tmp_path / "sums.csv"
    file.write_text("Aufgabe,Antwort\ncompute 3 + 4,7\n")
    said = ["--field", "problem=Aufgabe,answer=Antwort", "--baselines", "none", "--samples", "2"]
    command = ["run", "--data", str(file), "--out", str(tmp_path / "out"), *said, "--steps", "1", "--rollouts", "2"]
    app(command, standalone_mode=False)
    [row] = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert (row["id"], row["problem"], row["gold"]) == ("sums/0", "compute 3 + 4", "7")
    with pytest.raises(DataError, match="has no field 'Antworten'"):
        app([*command, "--field", "answer=Antworten"], standalone_mode=False)
    with pytest.raises(ConfigError, match="a run with another fields"):
        app([*command, "--field", "family=Antwort"], standalone_mode=False)
    plan = CompareConfig(data=(str(file),), fields=("problem=Aufgabe",), methods=("zero-shot",))
    assert dry_run(plan)["data"][0]["problems"] == 1 and plan.settings("zero-shot")["fields"] == ["problem=Aufgabe"]
    assert "fields" not in CompareConfig().settings("zero-shot")  # cells of before are kept


def test_a_folder_is_all_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.json").write_text(json.dumps({"problem": "two", "solution": "\\boxed{2}"}, indent=4))
    (tmp_path / "a.csv").write_text("problem,answer\none,1\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"problem": "three"}\n'))
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / ".hidden.jsonl").write_text("not data")
    found = sources.load(str(tmp_path))
    assert [(one.id, one.text) for one in found] == [("a/0", "one"), ("b/2/0", "two"), ("c/0", "three")]
    assert found.task == "number" and found.places["b/2/0"] == f"{tmp_path}/b/2.json line 1"


def test_a_folder_with_splits_asks_which(tmp_path: Path) -> None:
    for split, text in (("train", "a"), ("test", "b")):
        (tmp_path / f"{split}-00000-of-00001.parquet").write_bytes(parquet([{"problem": text}]))
    with pytest.raises(DataError, match=f"has the splits test, train; say which, as in hub:{tmp_path}:test"):
        sources.load(str(tmp_path))
    assert [one.text for one in sources.load(f"hub:{tmp_path}:test")] == ["b"]
    assert [one.text for one in sources.load(f"hub:{tmp_path}:train")] == ["a"]


def test_folders_without_data_and_paths_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder without data files"):
        sources.load(str(tmp_path))
    with pytest.raises(DataError, match=r"no data at .*nothing; give the path of a file .*testbed, hub"):
        sources.load(f"{tmp_path}/nothing")


def test_configurations_of_a_local_data_set(tmp_path: Path) -> None:
    for config in ("main", "other"):
        (tmp_path / config).mkdir()
        (tmp_path / config / "test.jsonl").write_text(json.dumps({"question": f"of {config}", "answer": "#### 1"}))
    [problem] = sources.load(f"hub:{tmp_path}:other:test")
    assert (problem.id, problem.text) == (f"{tmp_path}/other/0", "of other")
    with pytest.raises(ConfigError, match="too many parts; give hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT"):
        sources.load("hub:a:b:c:d")


def test_configurations_that_a_card_names(tmp_path: Path) -> None:
    for config in ("main", "other"):
        (tmp_path / f"{config}.jsonl").write_text(json.dumps({"question": f"of {config}", "answer": "1"}))
    parts = "".join(
        f"- config_name: {config}\n  data_files:\n  - split: test\n    path: {config}.jsonl\n"
        for config in ("main", "other")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    assert [one.text for one in sources.load(f"hub:{tmp_path}:other:test")] == ["of other"]
    with pytest.raises(DataError, match="CONFIG:SPLIT"):
        sources.load(f"hub:{tmp_path}:third:test")


def test_data_sets_that_save_to_disk_wrote(tmp_path: Path) -> None:
    datasets = importlib.import_module("datasets")
    labels = datasets.Features(
        {
            "question": datasets.Value("string"),
            "choices": datasets.Sequence(datasets.Value("string")),
            "answer": datasets.ClassLabel(names=["A", "B"]),
        }
    )
    one = datasets.Dataset.from_list([{"question": "Which?", "choices": ["x", "y"], "answer": 1}], features=labels)
    one.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "two"))
    for address in (f"{tmp_path}/one", f"hub:{tmp_path}/one", f"{tmp_path}/two", f"hub:{tmp_path}/two:train"):
        [problem] = sources.load(address)
        assert problem.text == "Which?\nA) x\nB) y" and Grader(problem).head(0)["gold"] == "B"
    with pytest.raises(DataError, match="no split 'dev' in it; there are: train, test"):
        sources.load(f"hub:{tmp_path}/two:dev")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[[str], Any] = importlib.import_module

    def without(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return original(name)

    (tmp_path / "set.parquet").write_bytes(parquet(ROWS))
    monkeypatch.setattr(errors.importlib, "import_module", without)
    with pytest.raises(ConfigError, match=r"a parquet file cannot be used .*tacit-memory\[hub\]"):
        sources.load(f"{tmp_path}/set.parquet")

"""Cleaning and exact deduplication."""

import polars as pl
import pyarrow as pa
import pytest
from clean_queries import clean_queries
from deduplicate_queries import deduplicate, find_duplicates
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whichteacher.cleaning import RULES, Texts, check_examples, find_faults
from whichteacher.config import Clean, Deduplicate
from whichteacher.ledger import Ledger
from whichteacher.patterns import TABLE, UNWANTED
from whichteacher.queries import query_id
from whichteacher.schemas import QUERIES, SELECTED, TURNS
from whichteacher.tables import as_table, write_table

CLEAN = Clean().model_dump()
DEDUPLICATE = Deduplicate().model_dump()


def query(content, source="a", row="1", **more):
    turns = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return {
        "query_id": query_id(turns),
        "source": source,
        "source_row": row,
        "category": "math",
        "licence": "MIT",
        "turns": turns,
        **dict.fromkeys(("reference", "reference_type", "tests", "constraints")),
        **more,
    }


def fault(content, **rules):
    clean = {reason: {**rule, **rules.get(reason, {})} for reason, rule in CLEAN.items()}
    turns = as_table([query(content)], QUERIES)["turns"].combine_chunks()
    return find_faults(turns, clean).get(0, (None, None))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("\u200b\u3000\ufeff", "empty"),
        ("Why", "incomplete"),
        ("  a  ", "incomplete"),
        ("Find all primes p such that\n", "incomplete"),
        ("x" * 20001, "too_long"),
        ("What is 3 \ufffd 4?", "broken_encoding"),
        ("Quâ€™est-ce que c'est?", "broken_encoding"),
        ("Ð§Ñ‚Ð¾ ÑÑ‚Ð¾ Ñ‚Ð°ÐºÐ¾Ðµ?", "broken_encoding"),
        ("a\ue000b\uf8ffc\x01d\x02", "unicode_ratio"),
        ("what\x01\x02\x7f?", "unicode_ratio"),
        ("\U000e0fffa\U000e0fffb", "unicode_ratio"),
        ("🎉🎉🎉 hey 🎉🎉", "unicode_ratio"),
        ("See https://example.org/a?b=c for it.", "url"),
        ("ftp://example.org holds it", "url"),
        ("See [here](HTTP://EXAMPLE.ORG).", "url"),
        ("Look at www.example.org now", "url"),
        ("Sum the table:\n| a | b |\n|---|:-:|\n| 1 | 2 |", "table"),
        ("a | b\r\n--- | ---\r\n1 | 2", "table"),
        ("> | a |\n> | - |\n> | 1 |", "table"),
        ("Sum <table border=1>\n<tr><td>1</td></tr></table>", "table"),
        ("<TR><TH>x</TH></TR>", "table"),
        ("Sum \\begin{tabular}{cc} 1 & 2 \\end{tabular}", "table"),
        ("Look: <IMG src=a.png>", "image"),
        ("Solve it <image> now", "image"),
        ("Refer to the following diagram and solve.", "image"),
        ("The figure below shows a square.", "image"),
    ],
)
def test_faults(content, reason):
    assert fault(content)[0] == reason
    assert fault(content)[1]


@pytest.mark.parametrize(
    "content",
    [
        "What is 347 + 285?",
        "求所有满足 x² + y² = 25 的整数对 (x, y)。",
        "Докажите, что √2 — иррациональное число.",
        "حل المعادلة س + ٣ = ٥",
        "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−f(a)|<ε",
        "Explain 👩‍🚀 and 🇨🇳 in one line.",
        "def f(x):\n\tif x | 1:\n\t\treturn x\r\n",
        "Solve |x| + |y| = 3.\n---\nGive all answers.",
        "P(A | B) is what?\n- a list item\n- another",
        "What does the <table> tag do, and <tr>?",
        "Is 1 < x and y > 2? The ratio is 3:4; see page 5.html.",
        "http is a protocol; what does www stand for?",
        "Ist ein Ärgernis größer als ein Übel?",
        "Où est-ce que l’on va à Noël, Zoë?",
        "What is the image of the map x ↦ x²? Consider the graph K₅.",
        "Is e^{iπ} + 1 = 0 and, if so, why?",
        "여기서 x의 값을 구하시오.",
    ],
)
def test_innocent_queries_survive(content):
    assert fault(content) == (None, None)


def test_switches_and_limits():
    assert fault("at https://example.org", url={"drop": False})[0] is None
    assert fault("|a|\n|-|\n|1|", table={"drop": False})[0] is None
    assert fault("a" * 20000)[0] is None and fault("four")[0] is None
    assert fault("\ue000" * 3 + "x" * 17)[0] is None
    assert fault("\ue000" * 4 + "x" * 16)[0] == "unicode_ratio"
    assert fault("abc", incomplete={"min_chars": 3})[0] is None
    assert fault("It ends in a,", incomplete={"ending": None})[0] is None
    assert fault("a pie chart", image={"pattern": "(?i)PIE"}) == ("image", "pie")


@given(st.lists(st.text(st.sampled_from("ab |-+<tr>\n:="), max_size=24), min_size=1, max_size=20))
def test_shortcuts_overlook_nothing(contents):
    """The default patterns are asked for in fewer texts, and give what they give in all."""
    texts = Texts(pa.array([[{"role": "user", "content": content}] for content in contents], TURNS))
    # An equal pattern that is not the default one, so that no shortcut is taken.
    for reason, key, default in (("table", "pattern", TABLE), ("unicode_ratio", "characters", UNWANTED)):
        rule = {**CLEAN[reason], key: f"(?:{default})"}
        assert RULES[reason](texts, CLEAN[reason])[0].tolist() == RULES[reason](texts, rule)[0].tolist()


@given(st.lists(st.text(st.characters(max_codepoint=0x250), max_size=8), min_size=1, max_size=20))
def test_control_characters_are_found_wherever_they_stand(contents):
    texts = Texts(pa.array([[{"role": "user", "content": content}] for content in contents], TURNS))
    odd = [any(ord(c) == 127 or (ord(c) < 32 and c not in "\t\n\v\f\r") for c in content) for content in contents]
    assert texts.with_controls().tolist() == odd


#: What ftfy's heuristic speaks of, and what stands beside it.
_MISREADABLE = sorted({c for group in MOJIBAKE_CATEGORIES.values() for c in group} - {"-"}) + list(
    "ab Z水한ㄱ°ГРвā\ufffd"
)


@settings(max_examples=300)
@given(st.lists(st.text(st.sampled_from(_MISREADABLE), max_size=6), min_size=1, max_size=20))
def test_no_misread_text_is_overlooked(contents):
    texts = Texts(pa.array([[{"role": "user", "content": content}] for content in contents], TURNS))
    found = RULES["broken_encoding"](texts, CLEAN["broken_encoding"])[0].tolist()
    assert found == [is_bad(content) or "\ufffd" in content for content in contents]


def test_every_default_example_is_judged_as_it_should_be():
    assert check_examples(CLEAN) == []
    assert all(CLEAN[reason]["drops"] and CLEAN[reason]["keeps"] for reason in RULES)


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"url": {"pattern": "("}}, "config key corpus.clean.url: regex"),
        ({"url": {"drops": ["No address."]}}, "corpus.clean.url.drops (value 'No address.'): the rule keeps it"),
        ({"image": {"keeps": ["![a](b)"]}}, "corpus.clean.image.keeps (value '![a](b)'): the rule drops it"),
        ({"too_long": {"max_chars": 30000}}, "corpus.clean.too_long.drops (value 'ten chars "),
        ({"incomplete": {"min_chars": 2}}, "corpus.clean.incomplete.drops (value 'Why'): the rule keeps it"),
    ],
)
def test_an_example_that_does_not_hold_is_named(rules, line):
    found = check_examples(Clean.model_validate(rules).model_dump())
    assert len(found) == 1 and line in found[0]


def test_dialogues_are_read_whole():
    def dialogue(first, last):
        turns = [("user", first), ("assistant", "Yes."), ("user", last)]
        return [{"role": role, "content": content} for role, content in turns]

    assert fault(dialogue("See http://example.org/x", "And now?"))[0] == "url"
    assert fault(dialogue("What is this?", ""))[0] == "empty"
    assert fault(dialogue("", "What is this?"))[0] is None


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=30), max_size=8))
def test_any_text_is_judged_and_the_ledger_balances(contents):
    table = as_table([query(content, row=str(i)) for i, content in enumerate(contents)], QUERIES)
    batch = table.append_column("row", pa.array(range(len(contents)), pa.int64()))
    ledger = Ledger("clean_queries", "all", len(contents))
    (kept,) = clean_queries([batch], CLEAN, ledger) if contents else [SELECTED.empty_table()]
    assert ledger.rows()[0]["rows"] == len(contents)
    dropped = {int(row["detail"].split(":")[0].removeprefix("a/")) for row in ledger.dropped}
    assert sorted([*kept["row"].to_pylist(), *dropped]) == list(range(len(contents)))


def rows_of(*rows):
    """Rows as :func:`deduplicate_queries.candidates` gives them, in the order of a selection."""
    ordered = sorted(enumerate(rows), key=lambda pair: pair[1]["source"])
    return pl.DataFrame(
        [
            {
                **{name: row[name] for name in ("source", "query_id", "source_row")},
                "row": place,
                "checked": any(row[name] is not None for name in ("reference", "tests", "constraints")),
            }
            for place, row in ordered
        ]
    )


def dropped_by(*rows):
    found = find_duplicates(rows_of(*rows), ["first", "second"])
    return {
        (row["source"], row["source_row"], f"{row['kept_source']}/{row['kept_source_row']}") for row in found.to_dicts()
    }


def test_a_row_that_can_be_verified_survives():
    rows = [
        query("What is it?", "first", "1"),
        query("What  is it?\n", "second", "1", constraints="{}"),
        query("Else?", "first", "2"),
    ]
    assert dropped_by(*rows) == {("first", "1", "second/1")}


def test_then_the_first_source_and_the_first_row_survive():
    rows = [query("Q", "second", "1"), query("Q", "first", "10"), query("Q", "first", "9")]
    for order in (rows, rows[::-1], [rows[1], rows[0], rows[2]]):
        assert dropped_by(*order) == {("second", "1", "first/9"), ("first", "10", "first/9")}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["A?", "B?", " A?\n", "C?"]), max_size=12))
def test_each_query_stays_once_and_in_order(tmp_path, contents):
    table = as_table([query(content, "first", str(i)) for i, content in enumerate(contents)], QUERIES)
    write_table(tmp_path / "first.parquet", table, QUERIES, {"source": "first"})
    rows = pa.array(range(len(contents)), pa.int64())
    selected = as_table(table.append_column("row", rows), SELECTED)
    kept, pairs, ledger = deduplicate([tmp_path / "first.parquet"], selected, ["first"], DEDUPLICATE, tmp_path)
    identifiers = kept["query_id"].to_pylist()
    assert identifiers == list(dict.fromkeys(table["query_id"].to_pylist()))
    assert len(pairs) == len(ledger.dropped) == len(contents) - len(identifiers)
    ledger.rows()


def test_of_near_duplicates_the_same_row_survives_as_of_equal_ones(tmp_path):
    text = "A farmer keeps hens in a barn at the edge of the village and sells all eggs they lay. What does he earn in a week?"
    turns = [{"role": "user", "content": "I count."}, {"role": "assistant", "content": "Good."}]
    dialogue = [*turns, {"role": "user", "content": text}]
    tables = {
        "first": [query(text, "first", "1"), query(f"{text} ", "first", "2"), query(dialogue, "first", "3")],
        "second": [
            query(f"{text} Thanks!", "second", "1", reference="8"),
            query(f"Hello! {text}", "second", "2", reference="9"),
            query(text.replace("A farmer", "One farmer"), "second", "3", tests="{}"),
        ],
    }
    selected = []
    for source, rows in tables.items():
        table = as_table(rows, QUERIES)
        write_table(tmp_path / f"{source}.parquet", table, QUERIES, {"source": source})
        selected.append(as_table(table.append_column("row", pa.array(range(3), pa.int64())), SELECTED))
    imported = [tmp_path / f"{source}.parquet" for source in tables]
    near = {**DEDUPLICATE, "near": True}
    kept, pairs, ledger = deduplicate(imported, pa.concat_tables(selected), list(tables), near, tmp_path)
    assert kept.select(["source", "row"]).to_pylist() == [
        {"source": "first", "row": 2},
        {"source": "second", "row": 0},
        {"source": "second", "row": 1},
    ]
    names = ("method", "dropped_source", "dropped_source_row", "kept_source", "kept_source_row")
    assert [tuple(pair[name] for name in names) for pair in pairs] == [
        ("exact", "first", "2", "first", "1"),
        ("near", "first", "1", "second", "1"),
        ("near", "second", "3", "second", "1"),
    ]
    ledger.rows()
    assert ledger.reasons == {"duplicate": 1, "near_duplicate": 2}
    assert ledger.dropped[1]["detail"].startswith("first/1: 0.9")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".parquet", ".parquet"]

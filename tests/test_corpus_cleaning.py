"""Cleaning and exact deduplication."""

import pytest
from clean_queries import clean_queries, find_faults
from deduplicate_queries import deduplicate, find_survivors
from hypothesis import given, settings
from hypothesis import strategies as st

from whichteacher.config import Clean
from whichteacher.queries import query_id
from whichteacher.schemas import QUERIES
from whichteacher.tables import as_table

CLEAN = Clean().model_dump()


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


def fault(content, **settings):
    return find_faults(as_table([query(content)], QUERIES), {**CLEAN, **settings}).row(0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("\u200b\u3000\ufeff", "empty"),
        ("Why", "incomplete"),
        ("  a  ", "incomplete"),
        ("x" * 20001, "too_long"),
        ("\ufffd\ufffd" + "abcd" * 2, "garbled"),
        ("a\ue000b\uf8ffc\x01d\x02", "garbled"),
        ("\U000e0fffa\U000e0fffb", "garbled"),
        ("See https://example.org/a?b=c for it.", "url"),
        ("ftp://example.org holds it", "url"),
        ("See [here](HTTP://EXAMPLE.ORG).", "url"),
        ("Look at www.example.org now", "url"),
        ("Sum the table:\n| a | b |\n|---|:-:|\n| 1 | 2 |", "markdown_table"),
        ("a | b\r\n--- | ---\r\n1 | 2", "markdown_table"),
        ("> | a |\n> | - |\n> | 1 |", "markdown_table"),
        ("Sum <table border=1>\n<tr><td>1</td></tr></table>", "html_table"),
        ("<TR><TH>x</TH></TR>", "html_table"),
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
    ],
)
def test_innocent_queries_survive(content):
    assert fault(content) == (None, None)


def test_switches_and_limits():
    assert fault("at https://example.org", drop_urls=False)[0] is None
    assert fault("|a|\n|-|\n|1|", drop_tables=False)[0] is None
    assert fault("a" * 20000)[0] is None and fault("four")[0] is None
    assert fault("\ufffd" * 3 + "x" * 17)[0] is None
    assert fault("\ufffd" * 4 + "x" * 16)[0] == "garbled"


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
    kept, ledger = clean_queries(table, CLEAN)
    assert ledger.rows()[0]["rows"] == len(contents)
    left = {row["source_row"] for row in kept.to_pylist()}
    assert left.isdisjoint(row["detail"].split(":")[0].removeprefix("a/") for row in ledger.dropped)
    assert kept.schema.equals(QUERIES)


def dedup(*rows):
    return find_survivors(as_table(rows, QUERIES), ["first", "second"])


def test_a_row_that_can_be_verified_survives():
    judged = dedup(
        query("What is it?", "first", "1"),
        query("What  is it?\n", "second", "1", constraints="{}"),
        query("Else?") | {"source": "first"},
    )
    assert judged["kept"].to_list() == [False, True, True]
    assert judged["survivor"].to_list()[0] == "second/1"


def test_then_the_first_source_and_the_first_row_survive():
    rows = [query("Q", "second", "1"), query("Q", "first", "10"), query("Q", "first", "9")]
    for order in (rows, rows[::-1], [rows[1], rows[0], rows[2]]):
        judged = dedup(*order)
        assert set(judged["survivor"]) == {"first/9"}
        assert judged.filter(judged["kept"])["source_row"].to_list() == ["9"]


@given(st.lists(st.sampled_from(["A?", "B?", " A?\n", "C?"]), max_size=12))
def test_each_query_stays_once_and_in_order(contents):
    table = as_table([query(content, "first", str(i)) for i, content in enumerate(contents)], QUERIES)
    kept, pairs, ledger = deduplicate(table, ["first"])
    identifiers = kept["query_id"].to_pylist()
    assert identifiers == list(dict.fromkeys(table["query_id"].to_pylist()))
    assert len(pairs) == len(ledger.dropped) == len(contents) - len(identifiers)
    ledger.rows()

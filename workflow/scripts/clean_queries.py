"""Drop queries that no teacher should be asked.

Reads all imported queries. Writes those that pass every rule of ``corpus.clean``, the ledger, and the dropped rows with
the first rule they break and what broke it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from whichteacher.ledger import Ledger
from whichteacher.schemas import QUERIES
from whichteacher.tables import read_table, versions, write_table

#: White space and the invisible characters that fill a text without saying anything.
_BLANK = r"^[\s\p{Cf}\p{Zs}]*$"
#: Characters that no writer typed. White space is a control character in part and is none of them. Lone surrogates
#: never get here: no UTF-8 text holds one.
_GARBLED = r"[[\p{Cc}\p{Co}\p{Cn}\x{FFFD}]--\s]"
_URL = r"(?i)\b(?:https?|ftp)://[^\s)\]>\"']+|\bwww\.[a-z0-9-]+(?:\.[a-z0-9-]+)+"
#: A row with a pipe, then GitHub-flavoured Markdown's row of dashes: with a pipe at either end, or between its cells.
_MARKDOWN_TABLE = (
    r"(?m)^.*\|.*\r?\n[ \t>]*(?:\|[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?"
    r"|:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?|:?-+:?[ \t]*\|)[ \t]*\r?$"
)
#: A table's or row's tag and right after it the tag of a part; a lone tag in a question about HTML is no table.
_HTML_TABLE = r"(?i)<(?:table|thead|tbody|tr)\b[^>]*>\s*<(?:caption|colgroup|thead|tbody|t[rdh])\b[^>]*>"

_DETAIL_CHARS = 80


def find_faults(queries: pa.Table, clean: Mapping[str, Any]) -> pl.DataFrame:
    """``reason`` and ``detail`` per query, in order; both null where nothing is wrong. ``clean`` is ``corpus.clean``.

    A query has the first reason that holds of: empty, incomplete, too_long, garbled, url, markdown_table, html_table.
    Length and content are those of all its turns; empty and incomplete are said of the user's last message.
    """
    contents = (
        pl.from_arrow(queries.select(["turns"]))
        .lazy()
        .select(pl.col("turns").list.eval(pl.element().struct.field("content")).alias("contents"))
    )
    text, last = pl.col("text"), pl.col("last")
    chars, garbled = text.str.len_chars(), text.str.count_matches(_GARBLED)
    rules = [
        ("empty", last.str.contains(_BLANK), pl.lit("no visible character")),
        (
            "incomplete",
            last.str.strip_chars().str.len_chars() < clean["min_chars"],
            pl.format("{} characters", last.str.strip_chars().str.len_chars()),
        ),
        ("too_long", chars > clean["max_chars"], pl.format("{} characters", chars)),
        ("garbled", garbled > clean["max_garbled"] * chars, pl.format("{} of {} characters", garbled, chars)),
    ]
    if clean["drop_urls"]:
        rules.append(("url", text.str.contains(_URL), text.str.extract(f"({_URL})")))
    if clean["drop_tables"]:
        rules.append(("markdown_table", text.str.contains(_MARKDOWN_TABLE), text.str.extract(f"({_MARKDOWN_TABLE})")))
        rules.append(("html_table", text.str.contains(_HTML_TABLE), text.str.extract(f"({_HTML_TABLE})")))
    texts = contents.select(text=pl.col("contents").list.join("\n"), last=pl.col("contents").list.last().fill_null(""))
    reason = pl.coalesce(*(pl.when(broken).then(pl.lit(name)) for name, broken, _ in rules))
    judged = texts.with_columns(reason=reason, row=pl.int_range(pl.len(), dtype=pl.Int64)).collect()
    # What broke a rule is looked up only in the few rows that break one.
    detail = pl.coalesce(*(pl.when(pl.col("reason") == name).then(told) for name, _, told in rules))
    details = judged.filter(pl.col("reason").is_not_null()).select(
        "row", detail=detail.str.replace_all(r"\s+", " ").str.slice(0, _DETAIL_CHARS)
    )
    return judged.select("row", "reason").join(details, on="row", how="left", maintain_order="left").drop("row")


def clean_queries(queries: pa.Table, clean: Mapping[str, Any]) -> tuple[pa.Table, Ledger]:
    """The queries without fault, in order, and the ledger."""
    faults = find_faults(queries, clean)
    good = faults["reason"].is_null()
    kept = queries.filter(good.to_arrow())
    ledger = Ledger("clean_queries", "all", queries.num_rows)
    ledger.keep(kept.num_rows)
    bad = pl.from_arrow(queries.select(["query_id", "source", "source_row"])).with_columns(faults).filter(~good)
    for row in bad.iter_rows(named=True):
        place = f"{row['source']}/{row['source_row']}"
        ledger.drop(row["query_id"], row["reason"], f"{place}: {row['detail']}")
    return kept, ledger


def main(imported: Sequence[str], clean: Mapping[str, Any], table: str, ledger: str, dropped: str) -> None:
    """Clean the queries of the tables ``imported``, in their order."""
    kept, counts = clean_queries(read_table(imported, QUERIES), clean)
    write_table(table, kept, QUERIES, {"clean": dict(clean), "versions": versions("polars")})
    counts.write(ledger, dropped)
    print(f"{counts.rows_in} queries, {counts.kept} kept, {len(counts.dropped)} dropped")


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.imported), snakemake.params.clean, **dict(snakemake.output.items()))  # noqa: F821

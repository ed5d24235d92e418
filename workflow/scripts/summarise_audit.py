"""What an audit found, release by release: tables for readers.

Reads what every trace showed (INSPECTED), where responses hold benchmark problems (CONTAMINATED_RESPONSES), the flagged queries
(CONTAMINATION), equal and nearly equal queries (DUPLICATES), the files' layouts (LAYOUTS_FOUND), the ledgers of the imports and
the licences of the queries. No text of a trace is read. Writes one CSV for each name of :data:`TABLES`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from whichteacher.inspection import FAULTS, SIGNS
from whichteacher.published import ODDITIES
from whichteacher.schemas import (
    BENCHMARK_PROBLEMS,
    CONTAMINATED_RESPONSES,
    CONTAMINATION,
    DUPLICATES,
    INSPECTED,
    LAYOUTS_FOUND,
    LEDGER,
    QUERIES,
)
from whichteacher.tables import read_table, write_text
from whichteacher.words import split_texts

#: The tables, by the name of their files.
TABLES = (
    "releases",
    "layouts",
    "unchecked",
    "verification",
    "disagreements",
    "faults",
    "systems",
    "truncation",
    "lengths",
    "repetition",
    "duplicates",
    "duplicate_pairs",
    "contamination",
    "quotations",
    "shared",
    "licences",
)
#: Examples of each kind and release.
SHOWN = 20
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: Shares of repeated 8-grams above which traces are counted. Prose that works a problem out repeats a tenth of them or so.
REPEATED = (0.3, 0.5, 0.8)
#: A length is taken for a limit where it has this many traces, this many times the mean of the lengths around it, and stands
#: among the longest quarter.
_CAP_ROWS, _CAP_TIMES, _CAP_AROUND, _CAP_QUANTILE = 10, 10.0, 64, 0.75
#: Why a verdict is open, by the reason that the verifiers give.
WHY = {
    "no_reference": "no reference answer, tests or constraints",
    "reference_unreadable": "the reference, tests or constraints cannot be read",
    "no_judge": "rules cannot tell: needs a judge or a reward model",
    "other_language": "the tests are for another language than the answer's",
    "timeout": "ran out of time",
    "sandbox_failed": "the sandbox failed",
}
#: Reasons of a fail that say nothing of the answer: the response is cut off, or has not both parts.
MALFORMED = (
    "truncated",
    "not_finished",
    "thinking_not_closed",
    "thinking_empty",
    "answer_missing",
    "answer_not_closed",
    "answer_empty",
    "text_outside_tags",
    "nested_tags",
)
#: Columns that tell what a release lacks.
_MAY_LACK = ("published_score", "published_perplexity", "finish_stated")
Releases = Mapping[str, Mapping[str, Any]]


def by_category(frame: pl.DataFrame, *columns: str) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """(release, category, ``columns`` of the rows) of a frame, then (release, "all", ...) of every release with several categories.

    One part is in memory at a time: a release may have millions of rows.
    """
    for release in frame["release"].unique(maintain_order=True):
        own = frame.lazy().filter(pl.col("release") == release)
        categories = sorted(map(str, own.select(pl.col("category").unique()).collect()["category"]))
        for category in categories:
            yield str(release), category, own.filter(pl.col("category") == category).select(columns).collect()
        if len(categories) > 1:
            yield str(release), "all", own.select(columns).collect()


# --- verification ----------------------------------------------------------------------------------------------------


def with_outcome(traces: pl.DataFrame) -> pl.DataFrame:
    """``traces`` with ``outcome``: the verdict, or ``malformed`` where the response fails without a look at its answer."""
    malformed = (pl.col("verdict") == "fail") & pl.col("reason").cast(pl.String).is_in(MALFORMED)
    verdict = pl.col("verdict").cast(pl.String)
    return traces.with_columns(outcome=pl.when(malformed).then(pl.lit("malformed")).otherwise(verdict))


def verification(traces: pl.DataFrame, thresholds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The publisher's verdict against ours: counts, and the share of agreement among the answers that both decided."""
    rows = []
    limit = pl.col("category").cast(pl.String).replace_strict(dict(thresholds), return_dtype=pl.Float64)
    score = pl.col("published_score")
    said = pl.when(score.is_null()).then(pl.lit("no score")).when(score >= limit).then(pl.lit("pass"))
    columns = ("release", "category", "verdict", "reason", "published_score")
    told = with_outcome(traces.select(columns)).with_columns(published=said.otherwise(pl.lit("fail")))
    for release, category, part in by_category(told, "published", "outcome"):
        grouped = part.group_by("published", "outcome").len()
        counts = {(str(said), str(ours)): count for said, ours, count in grouped.iter_rows()}
        both = sum(counts.get((said, ours), 0) for said in ("pass", "fail") for ours in ("pass", "fail"))
        alike = sum(counts.get((said, said), 0) for said in ("pass", "fail"))
        for published in ("pass", "fail", "no score"):
            ours = {told: counts.get((published, told), 0) for told in ("pass", "fail", "malformed", "unknown")}
            if sum(ours.values()):
                rows.append(
                    {
                        "release": release,
                        "category": category,
                        "published": published,
                        **ours,
                        "agreement": alike / both if both and published != "no score" else None,
                    }
                )
    return rows


def disagreements(traces: pl.DataFrame) -> list[dict[str, Any]]:
    """Traces on which publisher and verifier say opposite things, at most :data:`SHOWN` of each kind and release."""
    apart = pl.col("answer").is_not_null() & (pl.col("outcome") != "malformed")
    found = (
        with_outcome(traces)
        .filter(apart)
        .with_columns(
            kind=pl.when(pl.col("verdict") == "pass")
            .then(pl.lit("they fail it, we pass it"))
            .otherwise(pl.lit("they pass it, we fail it"))
        )
    )
    shown = found.sort("release", "kind", "attempt_id").group_by("release", "kind", maintain_order=True).head(SHOWN)
    columns = ("release", "kind", "category", "location", "published_score", "reason", "reference", "answer")
    return shown.select(columns).to_dicts()


def unchecked(
    traces: pl.DataFrame, releases: Releases, lost: Mapping[str, Mapping[str, int]], limits: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What could not be checked, of which traces, and why.

    ``lost`` are the rows of each release by the reason that kept them from being traces, ``limits`` what the configuration leaves
    out: ``benchmarks`` (names), ``short`` (problems too short to be looked for in responses), ``ngram``, ``embedder``.
    """
    rows: list[dict[str, Any]] = []

    def add(release: str, category: str, what: str, why: str, count: int) -> None:
        if count:
            rows.append({"release": release, "category": category, "what": what, "why": why, "rows": count})

    for name in releases:
        columns = ("release", "category", "verdict", "reason", *_MAY_LACK)
        own = traces.select(columns).filter(pl.col("release") == name)
        for reason, count in sorted(lost[name].items()):
            if reason == "no_query":
                add(name, "all", "anything", "the row's question could not be imported (see the ledger)", count)
            elif reason != "duplicate_answer":
                add(name, "all", "anything", f"unreadable row: {reason} (see the ledger)", count)
        for _, category, part in by_category(own, "verdict", "reason"):
            if category == "all":
                continue
            open_ = part.filter(pl.col("verdict") == "unknown").group_by("reason").len().sort("len", descending=True)
            for reason, count in open_.iter_rows():
                why = WHY.get(str(reason), f"the rules leave it open: {reason}")
                add(name, category, "whether the answer is right", why, count)
            malformed = with_outcome(part).filter(pl.col("outcome") == "malformed")["reason"].value_counts()
            for reason, count in malformed.sort("count", "reason", descending=[True, False]).iter_rows():
                add(name, category, "whether the answer is right", f"the response is not whole: {reason}", count)
        scores = own["published_score"].null_count()
        add(name, "all", "agreement with the publisher", "no verify_score", scores)
        unsaid = own.filter(~pl.col("finish_stated")).height
        add(name, "all", "truncation", "no finish_reason: only suspected, by signs in the text", unsaid)
        published = own.height - own["published_perplexity"].null_count()
        add(name, "all", "the published ppl", "needs its scorer and a GPU: taken as it is", published)
        add(name, "all", "perplexity", "none published, and no scorer here", own.height - published)
        if not limits["benchmarks"]:
            add(name, "all", "contamination", "no benchmarks in the configuration", own.height)
        elif limits["embedder"] is None:
            why = "no embedder in the configuration: only copies are found"
            add(name, "all", "rephrased or translated benchmark problems", why, own.height)
        if limits["short"]:
            why = f"{limits['short']} benchmark problems have fewer than {limits['ngram']} words"
            add(name, "all", "short problems in responses", why, own.height)
        if releases[name]["model"] == "unknown":
            add(
                name,
                "all",
                "which model wrote it",
                "the configuration does not say, and text does not prove it",
                own.height,
            )
    return rows


# --- the text --------------------------------------------------------------------------------------------------------


def words_of(traces: pl.DataFrame, column: str, meanings: Mapping[str, str], name: str) -> list[dict[str, Any]]:
    """How many traces have each word of ``column``, with its meaning and one place to look at."""
    rows = []
    for release, category, part in by_category(traces, "location", column):
        told = part.select("location", word=pl.col(column).str.split(" ")).explode("word").filter(pl.col("word") != "")
        counts = told.group_by("word").agg(pl.len(), pl.col("location").first())
        found = {word: (count, place) for word, count, place in counts.iter_rows()}
        for word, meaning in meanings.items():
            if word in found:
                count, place = found[word]
                rows.append(
                    {
                        "release": release,
                        "category": category,
                        name: word,
                        "meaning": meaning,
                        "rows": count,
                        "share": count / part.height,
                        "example": place,
                    }
                )
    return rows


def with_missing(traces: pl.DataFrame) -> pl.DataFrame:
    """``traces`` with the faults ``score_missing`` and ``perplexity_missing``, where others of the release have one."""
    traces = traces.select("release", "category", "location", "faults", "published_score", "published_perplexity")
    for column, word in (("published_score", "score_missing"), ("published_perplexity", "perplexity_missing")):
        has = pl.col(column).is_not_null().any().over("release")
        traces = with_word(traces, "faults", word, has & pl.col(column).is_null())
    return traces


def length_caps(lengths: np.ndarray) -> list[int]:
    """Lengths that look like a limit: very many responses have exactly that many tokens, hardly any nearly as many."""
    if not len(lengths):
        return []
    values, counts = np.unique(lengths, return_counts=True)
    sums = np.concatenate([[0], np.cumsum(counts)])
    first = np.searchsorted(values, values - _CAP_AROUND)
    last = np.searchsorted(values, values + _CAP_AROUND, side="right")
    around = (sums[last] - sums[first] - counts) / (2 * _CAP_AROUND)
    long_ = values >= np.quantile(lengths, _CAP_QUANTILE)
    spikes = (counts >= _CAP_ROWS) & (counts >= _CAP_TIMES * (around + 1)) & long_
    return values[spikes].tolist()


def with_word(traces: pl.DataFrame, column: str, word: str, where: pl.Expr) -> pl.DataFrame:
    """``traces`` with ``word`` added to ``column`` in the rows of ``where``."""
    joined = pl.concat_str([pl.col(column), pl.lit(word)], separator=" ").str.strip_chars()
    return traces.with_columns(pl.when(where).then(joined).otherwise(pl.col(column)).alias(column))


def with_compared(traces: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, list[int]]]:
    """``traces`` with the signs that take the other responses of the release to tell, and the length caps of each release.

    They are looked for where the release does not say how a response ended.
    """
    parts, caps = [], {}
    for (release,), part in traces.group_by("release", maintain_order=True):
        caps[str(release)] = found = length_caps(part["output_tokens"].to_numpy())
        open_ = ~pl.col("finish_stated")
        unended = pl.col("faults").str.contains("thinking_missing", literal=True)
        part = with_word(part, "signs", "thinking_unended", open_ & unended & (unended.mean() < 0.5))
        parts.append(with_word(part, "signs", "at_length_cap", open_ & pl.col("output_tokens").is_in(found)))
    return (pl.concat(parts) if parts else traces), caps


def truncation(traces: pl.DataFrame) -> list[dict[str, Any]]:
    """Signs of truncation, and after them each limit that lengths seem to have."""
    columns = ("release", "category", "location", "output_tokens", "finish_stated", "faults", "signs")
    compared, caps = with_compared(traces.select(columns))
    rows = words_of(compared, "signs", SIGNS, "sign")
    for row in rows:
        if row["sign"] == "at_length_cap":
            row["meaning"] += f" ({', '.join(f'{cap:,}' for cap in caps[row['release']])} tokens)"
    return rows


def lengths(traces: pl.DataFrame) -> list[dict[str, Any]]:
    """Tokens of the responses: mean, quantiles and maximum, for each release and category."""
    rows = []
    for release, category, part in by_category(traces, "output_tokens"):
        tokens = part["output_tokens"]
        quantiles = {f"p{round(100 * share)}": tokens.quantile(share, "nearest") for share in _QUANTILES}
        shown = {"release": release, "category": category, "traces": part.height, "mean": tokens.mean()}
        rows.append({**shown, **quantiles, "max": tokens.max(), "total": tokens.sum()})
    return rows


def repetition(traces: pl.DataFrame) -> list[dict[str, Any]]:
    """How much responses repeat themselves: the median share of repeated 8-grams, and traces above each of :data:`REPEATED`."""
    rows = []
    for release, category, part in by_category(traces, "repeated_share", "location"):
        shares = part.drop_nulls()
        if not shares.height:
            continue
        worst = shares.sort("repeated_share", "location", descending=[True, False]).row(0)
        rows.append(
            {
                "release": release,
                "category": category,
                "traces": shares.height,
                "median": shares["repeated_share"].median(),
                **{f"above_{limit}": int((shares["repeated_share"] > limit).sum()) for limit in REPEATED},
                "worst": worst[0],
                "example": worst[1],
            }
        )
    return rows


def systems(traces: pl.DataFrame) -> list[dict[str, Any]]:
    """The system messages of each release: how many there are, and the five most frequent."""
    rows = []
    for (release,), part in traces.select("release", "system").group_by("release", maintain_order=True):
        counts = part.group_by("system").len().sort("len", "system", descending=[True, False])
        for system, count in counts.head(5).iter_rows():
            shown = {"release": str(release), "different": counts.height, "system": str(system) or "(none)"}
            rows.append({**shown, "rows": count, "share": count / part.height})
    return rows


# --- the queries -----------------------------------------------------------------------------------------------------


def duplicates(
    pairs: pl.DataFrame, traces: pl.DataFrame, releases: Releases, lost: Mapping[str, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """Repetition of queries and responses within each release. ``pairs`` are rows of DUPLICATES."""
    asked = asked_again(pairs, releases)
    rows = []

    def add(release: str, kind: str, count: int, example: str | None) -> None:
        if count:
            rows.append({"release": release, "kind": kind, "rows": count, "example": example})

    def first(part: pl.DataFrame, column: str = "place") -> str | None:
        return part[column].sort()[0] if part.height else None

    for name in releases:
        own = asked.filter(pl.col("release") == name).sort("query_id", "place")
        in_file = own.filter(pl.col("place").cum_count().over("query_id", "file") > 1)
        add(name, "rows whose query stood before in the same file", in_file.height, first(in_file))
        one_each = own.unique(["query_id", "file"], maintain_order=True)
        in_files = one_each.filter(pl.col("place").cum_count().over("query_id") > 1)
        add(name, "files that ask a query of another file again, over all queries", in_files.height, first(in_files))
        in_categories = own.filter(pl.col("source").n_unique().over("query_id") > 1)
        count = in_categories["query_id"].n_unique()
        add(name, "queries that stand in two categories", count, first(in_categories))
        sources = set(releases[name]["sources"])
        near = pairs.filter((pl.col("method") == "near") & pl.col("dropped_source").is_in(sources))
        add(name, "queries nearly equal to another", near.height, first(near, "dropped_source_row"))
        add(name, "rows that repeat an answer to their query word by word", lost[name].get("duplicate_answer", 0), None)
        places = traces.select("release", "query_id", "location", "response").filter(pl.col("release") == name)
        several = places.filter(pl.col("query_id").is_duplicated())
        count = several["query_id"].n_unique()
        add(name, "queries with several different answers", count, first(several, "location"))
        same = places.filter(pl.col("response").is_duplicated()).filter(
            pl.col("query_id").n_unique().over("response") > 1
        )
        add(name, "responses that answer several queries word by word", same.height, first(same, "location"))
    return rows


def asked_again(pairs: pl.DataFrame, releases: Releases) -> pl.DataFrame:
    """Every row whose query stands elsewhere too: query_id, source, place (file:line), file and release."""
    exact = pairs.filter(pl.col("method") == "exact")
    sides = [
        exact.select(query_id="kept", source=pl.col(f"{side}_source"), place=pl.col(f"{side}_source_row"))
        for side in ("kept", "dropped")
    ]
    of_source = {source: name for name, release in releases.items() for source in release["sources"]}
    return (
        pl.concat(sides)
        .unique()
        .with_columns(
            file=pl.col("place").str.replace(r":\d+$", ""),
            release=pl.col("source").replace_strict(of_source, return_dtype=pl.String),
        )
    )


def duplicate_pairs(pairs: pl.DataFrame) -> list[dict[str, Any]]:
    """Nearly equal queries, those least alike first: where an innocent is likeliest."""
    near = pairs.filter(pl.col("method") == "near").sort("similarity", "dropped")
    return near.select("similarity", query="dropped_source_row", like="kept_source_row").head(SHOWN).to_dicts()


def contamination(traces: pl.DataFrame, flagged: pl.DataFrame, quoted: pl.DataFrame) -> list[dict[str, Any]]:
    """Traces by benchmark: those whose query is a problem, those that quote it then, and those that quote one all the same.

    ``flagged`` are rows of CONTAMINATION that a query falls for, ``quoted`` rows of CONTAMINATED_RESPONSES.
    """
    asked = traces.select("release", "query_id", "attempt_id").join(
        flagged.select("query_id", "benchmark").unique(), on="query_id"
    )
    kinds = (
        ("queries that are a benchmark problem", asked.unique(["release", "query_id", "benchmark"])),
        ("traces of such queries", asked),
        ("of these, responses that quote a problem", quoted.filter(pl.col("query_flagged"))),
        ("responses that hold a problem their query does not", quoted.filter(~pl.col("query_flagged"))),
    )
    rows = []
    for kind, found in kinds:
        counts = (
            found.group_by("release", "benchmark").agg(pl.col("attempt_id").n_unique()).sort("release", "benchmark")
        )
        rows += [
            {"release": str(release), "benchmark": benchmark, "kind": kind, "rows": count}
            for release, benchmark, count in counts.iter_rows()
        ]
    return sorted(rows, key=lambda row: (row["release"], row["benchmark"]))


def quotations(quoted: pl.DataFrame, traces: pl.DataFrame) -> list[dict[str, Any]]:
    """Responses that hold a problem which their query does not, at most :data:`SHOWN` per release."""
    news = quoted.filter(~pl.col("query_flagged")).join(traces.select("attempt_id", "location"), on="attempt_id")
    shown = news.sort("release", "share", "attempt_id", descending=[False, True, False])
    columns = ("release", "benchmark", "problem_id", "share", "query_share", "location", "quotation", "problem")
    return shown.group_by("release", maintain_order=True).head(SHOWN).select(columns).to_dicts()


def shared(traces: pl.DataFrame, releases: Releases) -> list[dict[str, Any]]:
    """Every two releases on the queries that both answer: solved ones (an answer passes) and median lengths.

    A query is decided where for each an answer passes, or all of its responses are whole and fail.
    """
    rows = []
    columns = ("release", "query_id", "verdict", "reason", "output_tokens")
    outcomes = {
        name: with_outcome(traces.select(columns).filter(pl.col("release") == name))
        .group_by("query_id")
        .agg(
            passed=(pl.col("outcome") == "pass").any(),
            failed=(pl.col("outcome") == "fail").all(),
            tokens=pl.col("output_tokens").median(),
        )
        for name in releases
    }
    for first, second in itertools.combinations(releases, 2):
        both = outcomes[first].join(outcomes[second], on="query_id", suffix="_b")
        if not both.height:
            continue
        decided = both.filter((pl.col("passed") | pl.col("failed")) & (pl.col("passed_b") | pl.col("failed_b")))
        a, b = decided["passed"], decided["passed_b"]
        rows.append(
            {
                "first": first,
                "second": second,
                "queries": both.height,
                "decided": decided.height,
                "both_pass": int((a & b).sum()),
                "first_only": int((a & ~b).sum()),
                "second_only": int((~a & b).sum()),
                "neither": int((~a & ~b).sum()),
                "tokens_first": both["tokens"].median(),
                "tokens_second": both["tokens_b"].median(),
            }
        )
    return rows


def licences(queries: Sequence[str], releases: Releases) -> list[dict[str, Any]]:
    """The licence that the configuration gives each release, and its queries; of equal ones the first release's counts."""
    found = pl.from_arrow(read_table(queries, QUERIES, ["source", "category", "licence"]))
    of_source = {source: name for name, release in releases.items() for source in release["sources"]}
    told = found.with_columns(release=pl.col("source").replace_strict(of_source, return_dtype=pl.String))
    return told.group_by("release", "category", "licence").len("queries").sort("release", "category").to_dicts()


# --- the whole -------------------------------------------------------------------------------------------------------


def read_inspected(files: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """INSPECTED of all releases, with the column ``release``."""
    names = pl.Enum(list(files))
    parts = [
        pl.from_arrow(read_table(list(paths), INSPECTED)).with_columns(
            pl.col("category", "verdict", "reason", "system").cast(pl.Categorical), release=pl.lit(name, dtype=names)
        )
        for name, paths in files.items()
    ]
    return pl.concat(parts)


def read_quoted(files: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """CONTAMINATED_RESPONSES of all releases, with the column ``release``."""
    names = pl.Enum(list(files))
    parts = [
        pl.from_arrow(read_table(list(paths), CONTAMINATED_RESPONSES)).with_columns(release=pl.lit(name, dtype=names))
        for name, paths in files.items()
    ]
    return pl.concat(parts)


def release_rows(
    layouts: Mapping[str, pa.Table], ledgers: Mapping[str, Mapping[str, int]], traces: pl.DataFrame
) -> list[dict[str, Any]]:
    """The size of each release: files, rows, what could not be read, traces, queries."""
    rows = []
    for name, table in layouts.items():
        counts = ledgers[name]
        own = traces.select("release", "query_id", "output_tokens").filter(pl.col("release") == name)
        apart = sum(count for reason, count in counts.items() if reason not in ("in", "kept", "duplicate_answer"))
        rows.append(
            {
                "release": name,
                "files": table.num_rows,
                "rows": counts["in"],
                "unreadable": apart,
                "repeated": counts.get("duplicate_answer", 0),
                "traces": counts["kept"],
                "queries": own["query_id"].n_unique(),
                "tokens": int(own["output_tokens"].sum()),
            }
        )
    return rows


def main(
    releases: Releases,
    files: Mapping[str, Mapping[str, Any]],
    shared_files: Mapping[str, Any],
    settings: Mapping[str, Any],
    outputs: Mapping[str, str],
) -> None:
    """Write the tables of :data:`TABLES` to ``outputs``.

    ``releases`` holds per name its ``sources`` and ``model``; ``files`` per name its ``inspected``, ``quoted`` (lists), ``layouts``
    and ``ledger``; ``shared_files`` the paths ``duplicates``, ``contamination`` and the lists ``queries`` and ``benchmarks``;
    ``settings`` the passing ``thresholds`` and ``decontaminate``.
    """
    traces = read_inspected({name: own["inspected"] for name, own in files.items()})
    quoted = read_quoted({name: own["quoted"] for name, own in files.items()})
    layouts = {name: read_table(own["layouts"], LAYOUTS_FOUND) for name, own in files.items()}
    ledgers = {}
    for name, own in files.items():
        counts = read_table(own["ledger"], LEDGER)
        ledgers[name] = dict(zip(counts["reason"].to_pylist(), counts["rows"].to_pylist(), strict=True))
    lost = {name: {k: v for k, v in counts.items() if k not in ("in", "kept")} for name, counts in ledgers.items()}
    pairs = pl.from_arrow(read_table(shared_files["duplicates"], DUPLICATES))
    about = [name for name in CONTAMINATION.names if name not in ("query", "problem")]
    flagged = pl.from_arrow(read_table(shared_files["contamination"], CONTAMINATION, about)).filter("dropped")
    problems = read_table(shared_files["benchmarks"], BENCHMARK_PROBLEMS, ["benchmark", "prompt"])
    decontaminate = settings["decontaminate"]
    ngram = decontaminate["ngram"]
    limits = {
        "benchmarks": problems["benchmark"].unique().to_pylist(),
        "short": sum(len(words.words) < ngram for words in split_texts(problems["prompt"].to_pylist())),
        "ngram": ngram,
        "embedder": decontaminate["embedder"],
    }
    missing = {
        "score_missing": "no verify_score, which other rows of the release have",
        "perplexity_missing": "no ppl, which other rows of the release have",
    }
    tables: dict[str, list[dict[str, Any]]] = {
        "releases": release_rows(layouts, ledgers, traces),
        "layouts": [{"release": name, **row} for name, table in layouts.items() for row in table.to_pylist()],
        "unchecked": unchecked(traces, releases, lost, limits),
        "verification": verification(traces, settings["thresholds"]),
        "disagreements": disagreements(traces),
        "faults": words_of(with_missing(traces), "faults", FAULTS | ODDITIES | missing, "fault"),
        "systems": systems(traces),
        "truncation": truncation(traces),
        "lengths": lengths(traces),
        "repetition": repetition(traces),
        "duplicates": duplicates(pairs, traces, releases, lost),
        "duplicate_pairs": duplicate_pairs(pairs),
        "contamination": contamination(traces, flagged, quoted),
        "quotations": quotations(quoted, traces),
        "shared": shared(traces, releases),
        "licences": licences(shared_files["queries"], releases),
    }
    for name in TABLES:
        write_text(outputs[name], as_csv(tables[name], name))


#: The columns of each table, so that one without rows has a head too.
COLUMNS = {
    "releases": ("release", "files", "rows", "unreadable", "repeated", "traces", "queries", "tokens"),
    "layouts": ("release", *LAYOUTS_FOUND.names),
    "unchecked": ("release", "category", "what", "why", "rows"),
    "verification": ("release", "category", "published", "pass", "fail", "malformed", "unknown", "agreement"),
    "disagreements": (
        "release",
        "kind",
        "category",
        "location",
        "published_score",
        "reason",
        "reference",
        "answer",
    ),
    "faults": ("release", "category", "fault", "meaning", "rows", "share", "example"),
    "systems": ("release", "different", "system", "rows", "share"),
    "truncation": ("release", "category", "sign", "meaning", "rows", "share", "example"),
    "lengths": ("release", "category", "traces", "mean", *(f"p{round(100 * s)}" for s in _QUANTILES), "max", "total"),
    "repetition": (
        "release",
        "category",
        "traces",
        "median",
        *(f"above_{limit}" for limit in REPEATED),
        "worst",
        "example",
    ),
    "duplicates": ("release", "kind", "rows", "example"),
    "duplicate_pairs": ("similarity", "query", "like"),
    "contamination": ("release", "benchmark", "kind", "rows"),
    "quotations": (
        "release",
        "benchmark",
        "problem_id",
        "share",
        "query_share",
        "location",
        "quotation",
        "problem",
    ),
    "shared": (
        "first",
        "second",
        "queries",
        "decided",
        "both_pass",
        "first_only",
        "second_only",
        "neither",
        "tokens_first",
        "tokens_second",
    ),
    "licences": ("release", "category", "licence", "queries"),
}


def as_csv(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The rows of a table as CSV."""
    columns = COLUMNS[name]
    frame = pl.DataFrame([{column: row[column] for column in columns} for row in rows], infer_schema_length=None)
    return frame.write_csv() if rows else ",".join(columns) + "\n"


if "snakemake" in globals():
    from whichteacher.outcomes import by_teacher
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        names = list(snakemake.params.releases)  # noqa: F821
        kinds = ("inspected", "quoted", "layouts", "ledgers")
        sorted_out = {kind: by_teacher(names, getattr(snakemake.input, kind)) for kind in kinds}  # noqa: F821
        main(
            snakemake.params.releases,  # noqa: F821
            {
                name: {
                    "inspected": sorted_out["inspected"][name],
                    "quoted": sorted_out["quoted"][name],
                    "layouts": sorted_out["layouts"][name],
                    "ledger": sorted_out["ledgers"][name][0],
                }
                for name in names
            },
            {
                "duplicates": snakemake.input.duplicates,  # noqa: F821
                "contamination": snakemake.input.contamination,  # noqa: F821
                "queries": list(snakemake.input.queries),  # noqa: F821
                "benchmarks": list(snakemake.input.benchmarks),  # noqa: F821
            },
            snakemake.params.settings,  # noqa: F821
            {Path(path).stem: path for path in snakemake.output},  # noqa: F821
        )

"""Datasets that may be compared: which of each teacher's traces its students see, under one control.

Reads the TRACES of all teachers and shards; writes one TRACES table per teacher, in the order of the shards, with its
ledger and dropped rows, and how alike the teachers' datasets are (BALANCE). Kinds of control:

* ``parallel``: the queries that every teacher solved (paper section 2.2, "paired with verified responses from all").
* ``own_passes``: everything a teacher solved.
* ``equal_rows``, ``equal_tokens``: own passes, cut to the rows or the response tokens of the smallest teacher.
* ``length_matched``, ``perplexity_matched``, ``length_perplexity_matched``: own passes, matched on coarse cells: of each
  cell of category and bin, every teacher keeps as many traces as the teacher with the fewest there.
* ``score_quantile``: of own passes, the best-scored share of each category.
* ``format_normalised``: the traces of ``parallel``, with their text in one format (:mod:`whichteacher.formats`).

Whatever is cut keeps the first rows in the order of a digest of ``query_id``: unrelated to length, source and category, and
the same queries first for every teacher. What is kept is decided on a few narrow columns; the text is then copied part by
part.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import xxhash

from whichteacher.formats import normalise_answer, normalise_thinking
from whichteacher.ledger import Ledger
from whichteacher.outcomes import ALL, by_teacher
from whichteacher.responses import join_response
from whichteacher.rule import InputError
from whichteacher.schemas import TRACES
from whichteacher.tables import read_frame, read_parts, write_batches, write_text
from whichteacher.tokens import Tokenizer, load_tokenizer

#: What a control may look at.
COLUMNS = ("query_id", "category", "output_tokens", "perplexity", "verify_score")
#: Columns that are matched, by kind.
MATCHED = {
    "length_matched": ("output_tokens",),
    "perplexity_matched": ("perplexity",),
    "length_perplexity_matched": ("output_tokens", "perplexity"),
}
#: The key of a control that sets a column's bins.
BINS = {"output_tokens": "length_bins", "perplexity": "perplexity_bins"}
#: Quantiles that bins are cut at, and the share of score_quantile, where a control says nothing.
DEFAULT_BINS, DEFAULT_SHARE = 10, 0.5
#: Measures of the balance, by column.
MEASURES = {"output_tokens": "length", "perplexity": "perplexity"}

Frames = Mapping[str, pd.DataFrame]
Reasons = dict[str, np.ndarray]


def digest_order(query_ids: pd.Series) -> np.ndarray:
    """Places of ``query_ids`` in an order that depends on nothing but each identifier."""
    digests = (xxhash.xxh3_64_intdigest(f"match_datasets {identifier}") for identifier in query_ids)
    return np.argsort(np.fromiter(digests, np.uint64, len(query_ids)), kind="stable")


def match(traces: Frames, control: Mapping[str, Any]) -> Reasons:
    """Per teacher and row (COLUMNS): why ``control`` (the configuration block as plain types) drops it, "" where it does not."""
    kind = control["kind"]
    if kind in MATCHED:
        return match_cells(traces, {column: control[BINS[column]] for column in MATCHED[kind]})
    if kind in ("parallel", "format_normalised"):
        return {name: _reasons(kept, "not_solved_by_every_teacher") for name, kept in shared(traces).items()}
    if kind == "own_passes":
        return {name: _reasons(np.ones(len(frame), bool), "") for name, frame in traces.items()}
    if kind == "score_quantile":
        share = control["share"] or DEFAULT_SHARE
        return {name: _reasons(best(frame, share), "below_score_quantile") for name, frame in traces.items()}
    orders = {name: digest_order(frame["query_id"]) for name, frame in traces.items()}
    if kind == "equal_rows":
        rows = min(map(len, traces.values()))
        return {name: _reasons(_places(order) < rows, "above_equal_rows") for name, order in orders.items()}
    tokens = {name: frame["output_tokens"].to_numpy()[orders[name]].cumsum() for name, frame in traces.items()}
    least = min(int(sums[-1]) if len(sums) else 0 for sums in tokens.values())
    return {
        name: _reasons((tokens[name] <= least)[_places(order)], "above_equal_tokens") for name, order in orders.items()
    }


def _reasons(kept: np.ndarray, reason: str) -> np.ndarray:
    return np.where(kept, "", reason).astype(object)


def _places(order: np.ndarray) -> np.ndarray:
    """The place of each row in ``order``."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def shared(traces: Frames) -> dict[str, np.ndarray]:
    """Which rows of each teacher are of a query that every teacher solved."""
    # Codes: pandas is far slower at looking up text in text.
    codes, queries = pd.factorize(pd.concat([frame["query_id"] for frame in traces.values()], ignore_index=True))
    of_teacher = dict(
        zip(traces, np.split(codes, np.cumsum([len(frame) for frame in traces.values()])[:-1]), strict=True)
    )
    solved = np.zeros(len(queries), np.int64)
    for found in of_teacher.values():
        solved[np.unique(found)] += 1
    return {name: solved[found] == len(traces) for name, found in of_teacher.items()}


def best(frame: pd.DataFrame, share: float) -> np.ndarray:
    """Which rows are among the best-scored ``share`` of their category, rounded up; ties go by digest."""
    ranked = frame.iloc[digest_order(frame["query_id"])].sort_values("verify_score", ascending=False, kind="stable")
    groups = ranked.groupby("category", observed=True)["verify_score"]
    kept = groups.cumcount() < np.ceil(share * groups.transform("size"))
    return kept.reindex(frame.index).to_numpy()


def limits_of(pooled: np.ndarray, bins: int | Sequence[float] | None) -> np.ndarray:
    """The limits between bins: given ones, or quantiles of the values ``pooled``; equal quantiles are one limit."""
    if bins is not None and not isinstance(bins, int):
        return np.asarray(bins, float)
    shares = np.linspace(0, 1, (bins or DEFAULT_BINS) + 1)[1:-1]
    return np.unique(np.quantile(pooled, shares)) if len(pooled) else np.empty(0)


def cells_of(traces: Frames, bins: Mapping[str, int | Sequence[float] | None]) -> dict[str, np.ndarray]:
    """The number of each row's cell: category and the bin of each column of ``bins``; -1 where a row has no value.

    A value on a limit is above it. Quantiles are those of all teachers' traces of the category together.
    """
    pooled = pd.concat([frame[["category", *bins]] for frame in traces.values()], ignore_index=True)
    codes, categories = pd.factorize(pooled["category"], sort=True)
    cells = codes.astype(np.int64)
    for column, chosen in bins.items():
        values = pooled[column].to_numpy(float)
        missing = np.isnan(values)
        found = np.zeros(len(values), np.int64)
        for category in range(len(categories)):
            here = (codes == category) & ~missing
            found[here] = np.searchsorted(limits_of(values[here], chosen), values[here], side="right")
        cells = np.where(missing | (cells < 0), -1, cells * (found.max(initial=0) + 1) + found)
    ends = np.cumsum([len(frame) for frame in traces.values()])[:-1]
    return dict(zip(traces, np.split(cells, ends), strict=True))


def match_cells(traces: Frames, bins: Mapping[str, int | Sequence[float] | None]) -> Reasons:
    """Coarsened exact matching on category and the columns of ``bins``: see the module's docstring."""
    cells = cells_of(traces, bins)
    count = max(int(cell.max(initial=-1)) for cell in cells.values()) + 1
    least = np.min([np.bincount(cell[cell >= 0], minlength=count) for cell in cells.values()], axis=0)
    found = {}
    for name, cell in cells.items():
        order = digest_order(traces[name]["query_id"])
        order = order[np.argsort(cell[order], kind="stable")]
        ordered = cell[order]
        # The place of each row among those of its cell.
        place = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")
        kept = np.zeros(len(cell), bool)
        kept[order] = (ordered >= 0) & (place < least[ordered] if count else False)
        found[name] = np.where(cell < 0, "no_perplexity", _reasons(kept, "above_smallest_teacher_in_cell"))
    return found


#: What to do where a dataset is empty, by kind; the other kinds are empty only where a teacher has no traces.
REMEDIES = {
    **dict.fromkeys(("parallel", "format_normalised"), "no query is left that every teacher solved: give the teachers more "
    "attempts or more queries, or leave out the teacher that solves the fewest"),
    **dict.fromkeys(MATCHED, "no cell holds traces of every teacher: use fewer bins (length_bins, perplexity_bins), or limits "
    "that the teachers' traces share"),
    "equal_tokens": "its first trace is longer than all that the smallest teacher has: give the teachers more queries",
}  # fmt: skip


def check_filled(control: str, kind: str, reasons: Reasons) -> None:
    """Raise :class:`InputError` for a dataset without rows, with the teacher at fault and what to do."""
    empty = [name for name, dropped in reasons.items() if (dropped != "").all()]
    if not empty:
        return
    without = next((name for name in empty if not len(reasons[name])), None)
    remedy = REMEDIES.get(kind, "")
    if without is not None:
        remedy = (
            "it has no traces at all: results' ledger of curate_traces says why; give it more attempts or more queries"
        )
    raise InputError(f"control {control}: no trace of teacher {without or empty[0]} is left: {remedy}")


def balance(before: Frames, after: Frames) -> pd.DataFrame:
    """How alike the datasets are: one row per teacher and category that has traces, ``all`` first.

    ``rows`` and ``tokens``; ``length_mean``, ``length_median``, ``perplexity_mean``, ``perplexity_median`` of the dataset; and of
    length and perplexity the standardised difference from the other teachers: this teacher's mean less the mean of the others'
    means, over the root of the teachers' mean variance. ``_before`` is the same of all that the teacher solved.
    """
    rows = []
    categories = sorted(set().union(*(frame["category"].unique() for frame in before.values())))
    for category in (ALL, *categories):
        chosen = [
            {name: frame if category == ALL else frame[frame["category"] == category] for name, frame in frames.items()}
            for frames in (before, after)
        ]
        for name in before:
            row: dict[str, Any] = {"teacher": name, "category": category}
            for frames, suffix in zip(chosen, ("_before", ""), strict=True):
                row[f"rows{suffix}"] = len(frames[name])
                row[f"tokens{suffix}"] = int(frames[name]["output_tokens"].sum())
            for column, measure in MEASURES.items():
                row[f"{measure}_mean"] = chosen[1][name][column].mean()
                row[f"{measure}_median"] = chosen[1][name][column].median()
                for frames, suffix in zip(chosen, ("_before", ""), strict=True):
                    row[f"{measure}_difference{suffix}"] = standardised_difference(frames, name, column)
            rows.append(row)
    return pd.DataFrame(rows)


def standardised_difference(frames: Frames, teacher: str, column: str) -> float:
    """See :func:`balance`; NaN where a teacher has fewer than two values, or all have none but one and the same."""
    means = {name: frame[column].mean() for name, frame in frames.items()}
    variance = np.mean([frame[column].var() for frame in frames.values()])
    others = [mean for name, mean in means.items() if name != teacher]
    if not others or not variance > 0:
        return np.nan
    return float((means[teacher] - np.mean(others)) / np.sqrt(variance))


def copy(paths: Sequence[str], kept: np.ndarray) -> Iterator[pa.Table]:
    """The kept rows of ``paths``, ``kept`` being of all their rows together."""
    start = 0
    for part in read_parts(paths, TRACES):
        here = kept[start : start + part.num_rows]
        start += part.num_rows
        if here.any():
            yield part.filter(pa.array(here))


def normalised(part: pa.Table, tokenizer: Tokenizer) -> pa.Table:
    """Traces with their text in one format. Tokens are counted anew; the perplexity was that of another text."""
    rows = part.to_pylist()
    for row in rows:
        row["thinking"] = normalise_thinking(row["thinking"])
        row["answer"] = normalise_answer(row["answer"], row["category"])
        row["perplexity"] = None
    counts = tokenizer.count([join_response(row["thinking"], row["answer"]) for row in rows])
    for row, tokens in zip(rows, counts, strict=True):
        row["output_tokens"] = tokens
    return pa.Table.from_pylist(rows, schema=TRACES)


def main(
    inputs: Mapping[str, Sequence[str]],
    outputs: Mapping[str, str],
    ledgers: Mapping[str, str],
    dropped: Mapping[str, str],
    balanced: str,
    name: str,
    control: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
) -> None:
    """Match and write control ``name``; every mapping of files goes from teacher to file, ``inputs`` to its shards.

    Raises :class:`InputError` where a teacher's dataset would be empty.
    """
    traces = {teacher: read_frame(paths, TRACES, COLUMNS) for teacher, paths in inputs.items()}
    reasons = match(traces, control)
    check_filled(name, control["kind"], reasons)
    counter = load_tokenizer(tokenizer) if control["kind"] == "format_normalised" else None
    for teacher, why in reasons.items():
        kept = why == ""
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger("match_datasets", f"{name}/{teacher}", len(kept), Path(folder, "dropped"))
            ledger.keep(int(kept.sum()))
            for identifier, reason in zip(traces[teacher]["query_id"][~kept], why[~kept], strict=True):
                ledger.drop(identifier, reason)
            rows = copy(inputs[teacher], kept)
            if counter is not None:
                rows = (normalised(part, counter) for part in rows)
            write_batches(outputs[teacher], rows, TRACES, {"name": name, "control": dict(control), "teacher": teacher})
            ledger.write(ledgers[teacher], dropped[teacher])
    matched = {teacher: read_frame(path, TRACES, COLUMNS) for teacher, path in outputs.items()}
    write_text(balanced, balance(traces, matched).to_csv(index=False))


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        teachers = snakemake.params.teachers  # noqa: F821
        main(
            by_teacher(teachers, snakemake.input.traces),  # noqa: F821
            dict(zip(teachers, snakemake.output.tables, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.output.ledgers, strict=True)),  # noqa: F821
            dict(zip(teachers, snakemake.output.dropped, strict=True)),  # noqa: F821
            snakemake.output.balance,  # noqa: F821
            snakemake.wildcards.control,  # noqa: F821
            snakemake.params.control,  # noqa: F821
            snakemake.params.tokenizer,  # noqa: F821
        )

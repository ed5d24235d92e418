"""Measure each accepted trace of a teacher.

Reads the shards of the teacher's curated traces (TRACES) and writes one row per trace (TRACE_MEASURES), a batch at a time:
no more than a batch of text is in memory, whatever the size of the corpus.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whichteacher.rule import Progress
from whichteacher.schemas import TRACE_MEASURES, TRACES
from whichteacher.structure import foreign_share, loop_characters
from whichteacher.tables import read_parts, write_batches
from whichteacher.traces import NGRAM, anatomy, find_answer, repeated_share

#: Words counted as self-corrections, whole and in any case.
SELF_CORRECTIONS = ("wait", "hmm", "check", "recheck", "verify", "again", "actually", "mistake", "correction")

#: Phrases by which a line of thought is left for another, whole and in any case.
RESTARTS = (
    *("alternatively", "from scratch", "start over", "starting over", "start again", "start afresh"),
    *("back to the beginning", "another approach", "another method", "another way", "another idea"),
    *("different approach", "different method", "different way", "different idea"),
    *("alternative approach", "alternative method"),
)
#: A phrase counts up to so many words into its sentence: behind "Hmm, maybe I should try", and not in the middle of a story.
RESTART_WORDS = 6

_SELF_CORRECTION = re.compile(rf"\b(?:{'|'.join(SELF_CORRECTIONS)})\b", re.IGNORECASE)
#: What stands before a phrase that counts, from the beginning of its sentence or line on, and how far back that is looked for.
_SENTENCE = re.compile(
    rf"(?:^|(?<=[.!?:;]\s))[^\w\n]{{0,8}}(?:[\w']+[^\w.!?:;\n]{{1,3}}){{0,{RESTART_WORDS}}}\Z", re.MULTILINE
)
_BEFORE = 120
READ = ("query_id", "category", "turns", "reference", "reference_type", "thinking", "answer", "teacher")
_KEPT = ("attempts", "output_tokens", "perplexity")


def restarts(text: str) -> int:
    """Sentences of ``text`` that begin with a phrase of :data:`RESTARTS`: lines of thought left for another, told by words alone.

    An English measure, as self-corrections are: compare teachers that write the same language.
    """
    lower = text.lower()
    begun = set()
    for phrase in RESTARTS:
        place = lower.find(phrase)
        while place >= 0:
            end = place + len(phrase)
            before = _SENTENCE.search(lower, max(0, place - _BEFORE), place)
            if before and not lower[end : end + 1].isalnum():
                begun.add(before.start())
            place = lower.find(phrase, end)
    return len(begun)


def measure_trace(trace: dict[str, Any]) -> dict[str, Any]:
    """The measures of one trace (a row of TRACES) that its text holds."""
    thinking, answer = trace["thinking"], trace["answer"]
    asked = "\n".join(turn["content"] for turn in trace["turns"] if turn["role"] == "user")
    end = find_answer(thinking, trace["reference"], trace["reference_type"])
    formula, code = anatomy(thinking)
    return {
        "thinking_characters": len(thinking),
        "thinking_answer_ratio": len(thinking) / max(1, len(answer)),
        "answer_position": None if end is None else end / len(thinking),
        "tail_characters": None if end is None else len(thinking) - end,
        "repeated_share": repeated_share(thinking),
        "self_corrections": len(_SELF_CORRECTION.findall(thinking)),
        "restarts": restarts(thinking),
        "formula_share": formula,
        "code_share": code,
        "foreign_share": foreign_share(asked, f"{thinking}\n{answer}"),
        "loop_characters": max(loop_characters(thinking), loop_characters(answer)),
    }


def measure_batches(paths: Sequence[str]) -> Iterator[pa.Table]:
    """The measures of tables of traces, a batch of rows at a time."""
    count = sum(pq.read_metadata(path).num_rows for path in paths)
    with Progress("measure_traces", count, "traces") as progress:
        for batch in read_parts(paths, TRACES, [*READ, *_KEPT]):
            rows = [
                {name: row[name] for name in ("teacher", "query_id", "category", *_KEPT)} | measure_trace(row)
                for row in batch.to_pylist()
            ]
            yield pa.Table.from_pylist(rows, schema=TRACE_MEASURES)
            progress.advance(len(rows))


def main(traces: Sequence[str], output: str) -> None:
    """Measure the tables ``traces`` and write ``output``."""
    settings = {"self_corrections": SELF_CORRECTIONS, "restarts": RESTARTS, "ngram": NGRAM}
    write_batches(output, measure_batches(traces), TRACE_MEASURES, settings)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.traces), snakemake.output[0])  # noqa: F821

"""Equal responses of one teacher: to different queries, and to one query again.

Reads the teacher's COLLECTED tables; writes the digest of every accepted response (RESPONSE_DIGESTS), the accepted
responses that equal one to another query (DUPLICATE_TRACES), and how many attempts repeat an earlier one (REPEATS). Two responses
are equal where they are after NFC, with tags taken out and every run of white space one space. Of equal responses to
different queries, the one to the query with the smallest ``query_id`` stands: a choice that no order of files, shards or
attempts can move. No more than a part of a table's text is in memory.
"""

import unicodedata
from collections.abc import Iterator, Sequence

import pandas as pd
import pyarrow as pa
import xxhash

from whichteacher.responses import TAGS
from whichteacher.rule import Progress
from whichteacher.schemas import COLLECTED, DUPLICATE_TRACES, REPEATS, RESPONSE_DIGESTS
from whichteacher.tables import read_parts, read_table, write_table


def digest(text: str) -> str:
    """xxh3-128 (32 hex digits) of ``text`` in the form that equal responses share."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return xxhash.xxh3_128_hexdigest(" ".join(text.split()).encode("utf-8", "surrogatepass"))


class Repeats:
    """Counts attempts that repeat an earlier one; the attempts of a query must follow one another."""

    def __init__(self) -> None:
        self.later = self.responses = self.answers = 0
        self._query: str | None = None
        self._seen: tuple[set[str], set[str]] = (set(), set())

    def add(self, query_id: str, response: str, answer: str | None) -> None:
        """Count an attempt: the digest of its response, and its answer part where it has one."""
        if query_id != self._query:
            self._query, self._seen = query_id, (set(), set())
        else:
            self.later += 1
            self.responses += response in self._seen[0]
            self.answers += answer is not None and digest(answer) in self._seen[1]
        self._seen[0].add(response)
        if answer is not None:
            self._seen[1].add(digest(answer))


def read_digests(attempts: Sequence[str], repeats: Repeats, step: str) -> Iterator[pa.Table]:
    """RESPONSE_DIGESTS of the accepted attempts, a part at a time; every attempt is counted in ``repeats``."""
    for path in attempts:
        count = read_table(path, COLLECTED, ["accepted"]).num_rows
        with Progress(f"{step} {path}", count, "attempts") as progress:
            for part in read_parts(path, COLLECTED, ["query_id", "text", "answer", "accepted"]):
                digests = [digest(text) for text in part["text"].to_pylist()]
                for row in zip(part["query_id"].to_pylist(), digests, part["answer"].to_pylist(), strict=True):
                    repeats.add(*row)
                table = pa.table({"query_id": part["query_id"], "response": digests})
                yield table.filter(part["accepted"]).cast(RESPONSE_DIGESTS)
                progress.advance(part.num_rows)


def duplicates(digests: pd.DataFrame) -> pd.DataFrame:
    """Rows of DUPLICATE_TRACES among rows of RESPONSE_DIGESTS, by ``query_id``."""
    equal = digests[digests.duplicated("response", keep=False)]
    kept = equal.groupby("response")["query_id"].transform("min")
    found = equal.assign(kept=kept)[equal["query_id"] != kept]
    return found.sort_values("query_id")


def main(attempts: Sequence[str], outputs: dict[str, str], teacher: str) -> None:
    """Find and write ``outputs`` (digests, duplicates, repeats)."""
    repeats = Repeats()
    found = list(read_digests(attempts, repeats, f"find_duplicate_traces {teacher}"))
    digests = pa.concat_tables([RESPONSE_DIGESTS.empty_table(), *found])
    write_table(outputs["digests"], digests, RESPONSE_DIGESTS)
    write_table(outputs["duplicates"], duplicates(digests.to_pandas()), DUPLICATE_TRACES)
    counts = {
        "teacher": teacher,
        "later_attempts": repeats.later,
        "repeated_responses": repeats.responses,
        "repeated_answers": repeats.answers,
    }
    write_table(outputs["repeats"], [counts], REPEATS)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(list(snakemake.input.attempts), dict(snakemake.output.items()), snakemake.wildcards.teacher)  # noqa: F821

"""Perplexity of a teacher's accepted responses of a shard under one scorer.

Reads the shard's attempts (COLLECTED) and queries (QUERIES), writes PERPLEXITIES in the order of the accepted attempts: exp of
the mean negative log-likelihood of the response's tokens given the rendered query (scope ``response``), or of query and response
together (``query_and_response``). The paper names neither scope nor template (section 2.2): the scorer's own chat template
renders the query. vLLM reads the rows; what it read lands in the store first, so a killed job loses at most the store's last
flush, and a job that finds everything there starts no engine.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from whichteacher.chat import messages
from whichteacher.engines.score import score
from whichteacher.engines.specs import ScorerSpec, content_digest, score_keys
from whichteacher.perplexity import perplexity_columns
from whichteacher.responses import THINK
from whichteacher.rounds import template
from whichteacher.schemas import PERPLEXITIES, QUERIES
from whichteacher.store import Store, StoreError
from whichteacher.tables import read_table, write_batches

_BATCH_ROWS = 1024
_OUTPUT_ROWS = 65536
#: A segment found damaged while it is read has its rows scored again, so often.
_PASSES = 3

#: What a perplexity is made of, of the columns of SCORES.
_NUMBERS = ["length", "query_tokens", "query_nll", "response_tokens", "response_nll"]

Render = Callable[[list[list[dict[str, str]]]], list[str]]
#: Attempt, query, rendered query (None where the template fails at it) and response.
Row = tuple[str, str, str | None, str]


def spec_of(scorer: Mapping[str, Any], perplexity: Mapping[str, Any], running: Mapping[str, Any]) -> ScorerSpec:
    """The spec of a scorer, from its configuration block and that of the perplexities, both as plain JSON types; ``running`` says
    how it is served and not what it says."""
    return ScorerSpec(
        **scorer,
        max_length=perplexity["max_length"],
        overlong=perplexity["overlong"],
        tensor_parallel=running["tensor_parallel"],
        pipeline_parallel=running["pipeline_parallel"],
        data_parallel=running["data_parallel"],
        arguments=running["vllm_arguments"],
    )


def accepted_rows(attempts: str, turns: Mapping[str, list[dict[str, str]]], render: Render) -> Iterator[Row]:
    """Every accepted attempt; a batch of rows is in memory at a time."""
    columns = ["attempt_id", "query_id", "text", "accepted"]
    with pq.ParquetFile(attempts) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            rows = batch.filter(batch["accepted"]).to_pylist()
            prompts = rendered([messages(turns[row["query_id"]]) for row in rows], render)
            for row, prompt in zip(rows, prompts, strict=True):
                yield row["attempt_id"], row["query_id"], prompt and closed(prompt, row["text"]), row["text"]


def rendered(chats: list[list[dict[str, str]]], render: Render) -> list[str | None]:
    """Each of ``chats`` as the scorer's template writes it, None for one that it refuses."""
    try:
        return list(render(chats)) if chats else []
    except Exception as error:  # whatever a template raises
        if len(chats) == 1:
            print(f"score_perplexity: the scorer's chat template fails at a query: {error}")
            return [None]
        return [prompt for chat in chats for prompt in rendered([chat], render)]


def closed(prompt: str, text: str) -> str:
    """``prompt`` without the thinking that the scorer's template opens, where ``text`` opens its own."""
    if text.lstrip().startswith(THINK) and prompt.rstrip().endswith(THINK):
        return prompt.rstrip().removesuffix(THINK)
    return prompt


def missing_rows(
    rows: Iterator[Row], key_of: Callable[[str], str], missing: set[str]
) -> Iterator[tuple[str, str, str]]:
    """Key, rendered query and response of each key of ``missing``, once."""
    left = set(missing)
    for _, _, prompt, text in rows:
        if prompt is not None and (key := key_of(content_digest(prompt, text))) in left:
            left.remove(key)
            yield key, prompt, text


def stored_scores(
    keys: Sequence[str], rows: Callable[[], Iterator[Row]], spec: ScorerSpec, shelf: Store, scratch: Path, step: str
) -> pa.Table:
    """The numbers of SCORES for ``keys`` (distinct), in their order: from the store where they are there, else read and stored.

    ``rows`` goes through the accepted rows once more; ``scratch`` is a folder that is made and removed.
    """
    key_of = score_keys(shelf.owner, spec.settings())
    for left in reversed(range(_PASSES)):
        absent = np.flatnonzero(shelf.find(pa.array(keys, pa.string())).segment < 0)
        print(f"{step}: {len(keys) - len(absent)} of {len(keys)} rows are in the store")
        if len(absent):
            missing = {keys[place] for place in absent}
            score(missing_rows(rows(), key_of, missing), len(missing), spec, shelf, step)
        try:
            tables = [table.select(_NUMBERS) for table in shelf.ordered(keys, _OUTPUT_ROWS, scratch)]
            return pa.concat_tables([shelf.schema.empty_table().select(_NUMBERS), *tables])
        except StoreError as error:
            if not left:
                raise
            print(f"{step}: {error}: scoring them again")


def main(
    attempts: str,
    queries: str,
    output: str,
    name: str,
    scorer: dict[str, Any],
    perplexity: dict[str, Any],
    running: dict[str, Any],
    store: str,
    step: str,
) -> None:
    """Score and write; ``name`` is the scorer's, ``scorer`` and ``perplexity`` are configuration blocks as plain JSON types."""
    spec = spec_of(scorer, perplexity, running)
    turns = {row["query_id"]: row["turns"] for row in read_table(queries, QUERIES, ["query_id", "turns"]).to_pylist()}
    render = template(scorer)
    shelf = Store(store, "perplexities", spec.owner())
    key_of = score_keys(shelf.owner, spec.settings())

    def rows() -> Iterator[Row]:
        return accepted_rows(attempts, turns, render)

    # Equal rows are scored once. Nothing of the texts stays in memory.
    places: dict[str, int] = {}
    found = [
        (
            attempt,
            query,
            None if prompt is None else places.setdefault(key_of(content_digest(prompt, text)), len(places)),
        )
        for attempt, query, prompt, text in rows()
    ]
    scores = stored_scores(list(places), rows, spec, shelf, Path(f"{output}.scratch"), step)
    states: Counter[str] = Counter()

    def tables() -> Iterator[pa.Table]:
        for start in range(0, len(found), _OUTPUT_ROWS):
            part = found[start : start + _OUTPUT_ROWS]
            # A place that is null takes a row of nulls.
            taken = scores.take(pa.array([place for *_, place in part], pa.int64())).to_pylist()
            made = []
            for (attempt, query, place), row in zip(part, taken, strict=True):
                told = perplexity_columns(
                    None if place is None else row, perplexity["scope"], spec.max_length, spec.overlong
                )
                states[told["state"]] += 1
                made.append(
                    {"attempt_id": attempt, "query_id": query, "scorer": name, "scope": perplexity["scope"], **told}
                )
            yield pa.Table.from_pylist(made, schema=PERPLEXITIES)

    write_batches(output, tables(), PERPLEXITIES, {"scorer": scorer, "perplexity": perplexity})
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "nothing accepted"
    print(f"{step}: {len(found)} responses: {told}")


if "snakemake" in globals() and __name__ == "__main__":  # vLLM imports this again in processes of its own
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        place = snakemake.wildcards  # noqa: F821
        main(
            snakemake.input.attempts,  # noqa: F821
            snakemake.input.queries,  # noqa: F821
            snakemake.output.table,  # noqa: F821
            place.scorer,
            snakemake.params.scorer,  # noqa: F821
            snakemake.params.perplexity,  # noqa: F821
            snakemake.config["running"][f"scorer:{place.scorer}"],  # noqa: F821
            snakemake.params.store,  # noqa: F821
            f"score_perplexity {place.teacher}, shard {place.shard}, scorer {place.scorer}",
        )

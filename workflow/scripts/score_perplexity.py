"""Perplexity of a teacher's accepted responses under the scorer model.

Reads COLLECTED tables, writes PERPLEXITIES: exp of the mean negative log-likelihood of the response's tokens given the
rendered query (scope ``response``), or of query and response together (scope ``query_and_response``, the predecessor's
definition). The paper names the scorer, AM-Distill-Qwen-32B, but neither scope nor template (section 2.2): the scorer's
own chat template renders the query. Rows longer than ``max_length`` are scored on their first tokens.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from whichteacher.chat import messages
from whichteacher.places import locate
from whichteacher.rule import Progress
from whichteacher.schemas import COLLECTED, PERPLEXITIES, QUERIES
from whichteacher.tables import read_table, write_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKENS_PER_BATCH = 8192


def batches(lengths: Sequence[int], budget: int = _TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Indices of rows of similar length, each batch padded to at most ``budget`` tokens (or one row)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def perplexities(
    model: "PreTrainedModel", rows: Sequence[tuple[list[int], int]], progress: Progress
) -> list[float | None]:
    """Perplexity of each row: (token ids, index of the first token that counts). None where no token counts."""
    import torch

    values: list[float | None] = [None] * len(rows)
    for batch in batches([len(ids) for ids, _ in rows]):
        width = max(len(rows[index][0]) for index in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for line, index in enumerate(batch):
            tokens = torch.tensor(rows[index][0])
            ids[line, : len(tokens)], mask[line, : len(tokens)] = tokens, 1
        with torch.inference_mode():
            logits = model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
            ).logits.float()
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), ids[:, 1:].to(model.device), reduction="none"
        ).cpu()
        for line, index in enumerate(batch):
            tokens, first = rows[index]
            # The loss at position i is that of token i + 1; the very first token of a row has no prediction.
            counted = losses[line, max(first - 1, 0) : len(tokens) - 1]
            if len(counted):
                values[index] = float(counted.mean().exp())
        progress.advance(len(batch))
    return values


def main(attempts: list[str], queries: list[str], output: str, settings: dict[str, Any], step: str) -> None:
    """Score and write; ``settings`` is the block ``curation.perplexity`` as plain JSON types."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scorer = settings["scorer"]
    collected = read_table(attempts, COLLECTED, ["attempt_id", "query_id", "text", "accepted"])
    accepted = collected.filter(collected["accepted"]).to_pylist()
    turns = {row["query_id"]: row["turns"] for row in read_table(queries, QUERIES, ["query_id", "turns"]).to_pylist()}
    tokenizer = AutoTokenizer.from_pretrained(locate(scorer["model"]), revision=scorer["revision"])
    model = AutoModelForCausalLM.from_pretrained(
        locate(scorer["model"]), revision=scorer["revision"], dtype=scorer["dtype"]
    )
    model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    rows, counts = [], []
    for row in accepted:
        prompt = tokenizer.apply_chat_template(
            messages(turns[row["query_id"]]), tokenize=False, add_generation_prompt=True
        )
        before = tokenizer.encode(prompt, add_special_tokens=False)
        ids = (before + tokenizer.encode(row["text"], add_special_tokens=False))[: settings["max_length"]]
        first = len(before) if settings["scope"] == "response" else 1
        rows.append((ids, first))
        counts.append(max(len(ids) - first, 0))
    with Progress(step, len(rows)) as progress:
        values = perplexities(model, rows, progress)
    write_table(
        output,
        [
            {
                "attempt_id": row["attempt_id"],
                "scorer": scorer["model"],
                "scope": settings["scope"],
                "tokens": count,
                "perplexity": value,
            }
            for row, count, value in zip(accepted, counts, values, strict=True)
        ],
        PERPLEXITIES,
        settings,
    )


if "snakemake" in globals():
    import os

    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)  # noqa: F821
        main(
            list(snakemake.input.attempts),  # noqa: F821
            list(snakemake.input.queries),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.perplexity,  # noqa: F821
            f"score_perplexity {snakemake.wildcards.teacher}",  # noqa: F821
        )

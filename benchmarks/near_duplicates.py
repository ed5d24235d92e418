"""What finding near duplicates costs, and what it finds, beside plain datasketch in the same run.

    .venv/bin/uv venv --python .venv/bin/python .venv-benchmarks
    .venv/bin/uv pip install --python .venv-benchmarks/bin/python --no-deps --require-hashes --requirement envs/benchmarks.txt
    .venv-benchmarks/bin/python benchmarks/near_duplicates.py [--documents 100000] [--baseline 2000] [--characters 400 2500]
        [--repeats 3] [--seed 1]

Documents are made-up words, a few of them very frequent, and numbers. For 1 % of them each there is a copy with 2, 5 and
10 % of its words (at least one, no numbers) replaced by others; no two other documents are alike.

Ours: `whichteacher.near_duplicates` with the defaults of the config. Plain datasketch: per document `MinHash(num_perm=128)`,
one `update` per word 5-gram of `text.split()`, then `query` and `insert` of a `MinHashLSH` with the same threshold, on fewer
documents. Each repeat is one process for either, in turn. The ratio is that of CPU seconds per document (all threads, without
start and making the documents), the median over repeats and its range; the memory is the peak of our process as a whole.

Found: copies whose original was found. False: pairs of ours whose two are no original and copy; candidates of datasketch that
are none, which it leaves to the caller to check.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

RATES = (0.02, 0.05, 0.10)
_BATCH = 5_000
_WORDS = 30_000


def make_batches(
    documents: int, characters: int, seed: int
) -> Iterator[tuple[list[str], dict[int, tuple[int, float]]]]:
    """Batches of documents of about so many characters, and which of them are copies: {row: (original's row, rate)}.

    Rows are numbered through all batches, copies included: there are some 3 % more rows than ``documents``.
    """
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, length)) for length in rng.integers(2, 10, _WORDS)]
    words += [str(number) for number in rng.integers(0, 1000, _WORDS // 10)]
    size = round(characters / 6.3)
    first = 0
    while documents > 0:
        count = min(documents, _BATCH)
        # The square makes words at the front of the list frequent, as some are in any language.
        drawn = (rng.random((count, size)) ** 2 * _WORDS).astype(np.int64)
        drawn = np.where(rng.random(drawn.shape) < 0.05, rng.integers(_WORDS, len(words), drawn.shape), drawn)
        originals = rng.permutation(count)[: len(RATES) * max(count // 100, 1)]
        copies, made = {}, []
        for number, original in enumerate(originals.tolist()):
            rate = RATES[number % len(RATES)]
            row = drawn[original].copy()
            plain = np.flatnonzero(row < _WORDS)
            row[rng.choice(plain, max(1, round(rate * size)), replace=False)] = rng.integers(
                0, _WORDS, max(1, round(rate * size))
            )
            copies[first + count + number] = (first + original, rate)
            made.append(row)
        rows = np.concatenate([drawn, np.array(made)])
        yield [" ".join([words[word] for word in row]) for row in rows.tolist()], copies
        documents -= count
        first += len(rows)


def run_ours(documents: int, characters: int, seed: int) -> dict[str, Any]:
    """Our side, in this process."""
    from whichteacher.config import Deduplicate
    from whichteacher.near_duplicates import find_near_duplicates

    settings = Deduplicate().model_dump(include={"similarity", "ngram", "same_numbers"})
    copies: dict[int, tuple[int, float]] = {}
    making, rows = 0.0, sum(count + 3 * max(count // 100, 1) for count in _counts(documents))

    def batches() -> Iterator[pl.DataFrame]:
        nonlocal making
        began = time.process_time()
        for texts, some in make_batches(documents, characters, seed):
            copies.update(some)
            frame = pl.DataFrame({"text": texts}).with_columns(context=pl.lit(""), answer=pl.lit(None, pl.String))
            making += time.process_time() - began
            yield frame
            began = time.process_time()

    began = time.process_time()
    found = find_near_duplicates(batches(), np.arange(rows), **settings)
    seconds = time.process_time() - began - making
    pairs = dict(zip(found.dropped.tolist(), found.kept.tolist(), strict=True))
    return {"rows": rows, "seconds": seconds, **_judge(pairs.items(), copies)}


def run_datasketch(documents: int, characters: int, seed: int) -> dict[str, Any]:
    """Plain datasketch, in this process."""
    from datasketch import MinHash, MinHashLSH

    from whichteacher.config import Deduplicate

    settings = Deduplicate()
    texts: list[str] = []
    copies: dict[int, tuple[int, float]] = {}
    for some, others in make_batches(documents, characters, seed):
        texts += some
        copies.update(others)
    began = time.process_time()
    index = MinHashLSH(threshold=settings.similarity, num_perm=128)
    pairs = []
    for row, text in enumerate(texts):
        words = text.split()
        signature = MinHash(num_perm=128)
        for start in range(max(len(words) - settings.ngram + 1, 1)):
            signature.update(" ".join(words[start : start + settings.ngram]).encode())
        pairs += [(row, other) for other in index.query(signature)]
        index.insert(row, signature)
    seconds = time.process_time() - began
    return {"rows": len(texts), "seconds": seconds, **_judge(pairs, copies)}


def _counts(documents: int) -> list[int]:
    return [min(_BATCH, documents - start) for start in range(0, documents, _BATCH)]


def _judge(pairs: Any, copies: dict[int, tuple[int, float]]) -> dict[str, Any]:
    """Copies found and copies there are, per rate, and false pairs, of ``pairs`` (later row, earlier row)."""
    pairs = list(pairs)
    right = {later for later, earlier in pairs if copies.get(later, (None,))[0] == earlier}
    rates = [rate for _, rate in copies.values()]
    return {
        "found": [sum(copies[row][1] == rate for row in right) for rate in RATES],
        "copies": [rates.count(rate) for rate in RATES],
        "false": sum(copies.get(later, (None,))[0] != earlier for later, earlier in pairs),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(side: str, documents: int, characters: int, seed: int) -> dict[str, Any]:
    """One side (``ours`` or ``datasketch``) in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--side",
        side,
        "--documents",
        documents,
        "--characters",
        characters,
        "--seed",
        seed,
    ]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(documents: int, baseline: int, characters: int, seed: int, repeats: int) -> None:
    """Print the comparison for one length of documents."""
    ratios = []
    for repeat in range(repeats):
        ours = measure("ours", documents, characters, seed + repeat)
        theirs = measure("datasketch", baseline, characters, seed + repeat)
        each = [1e6 * side["seconds"] / side["rows"] for side in (ours, theirs)]
        ratios.append(each[1] / each[0])
        print(
            f"{characters} characters, seed {seed + repeat}: datasketch / ours = {each[1]:.0f} / {each[0]:.1f} us CPU per document = {ratios[-1]:.0f}"
        )
        for name, side in (("ours", ours), ("datasketch", theirs)):
            found = ", ".join(
                f"{count}/{copies} at {rate:.0%}"
                for rate, count, copies in zip(RATES, side["found"], side["copies"], strict=True)
            )
            print(
                f"  {name}: {side['rows']} documents, found {found}; {side['false']} false; peak {side['peak_mib']:.0f} MiB"
            )
    print(
        f"{characters} characters: ratio {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--baseline", type=int, default=2_000, help="documents of plain datasketch")
    parser.add_argument("--characters", type=int, nargs="+", default=[400, 2500])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", choices=("ours", "datasketch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run = run_ours if arguments.side == "ours" else run_datasketch
        print(json.dumps(run(arguments.documents, arguments.characters[0], arguments.seed)))
        return
    for characters in arguments.characters:
        compare(arguments.documents, arguments.baseline, characters, arguments.seed, arguments.repeats)


if __name__ == "__main__":
    main()

"""What counting n-grams and tokens and filtering responses costs: ratios against named baselines in the same run.

    .venv/bin/python benchmarks/curation.py ngrams [--tokens 10000000] [--repeats 5] [--without counter]
    .venv/bin/python benchmarks/curation.py tokens DATA [--repeats 5] [--characters 4000] [--tokenizer FOLDER | --ranks FILE]
    .venv/bin/python benchmarks/curation.py filters [--tokens 10000000] [--repeats 5]

Every variant runs in a process of its own, in turn, on the same files, after its imports and after what it compiles is
compiled; all must give the same answer, or the benchmark fails. Ratios are baseline / ours in CPU seconds (user and system, all
threads) of the same repeat: the median over the repeats and their range. The peak is resident memory.

`ngrams`: the 20-token n-grams that occur more than 20 times in responses of 400 tokens, read as token ids from Parquet:

- ours: the four rules on one shard, with their files;
- counter: a Counter of tuples;
- numba_two_pass: all tokens in memory, 2**27 byte-wide counters chosen by a rolling hash, then the hashes of the windows whose
  counter is high, sorted and counted; it takes windows of equal hash for equal ones;
- read: no more than reading the file, for scale.

`tokens`: the number of tokens of each real response in DATA, a folder with `outputs/*.jsonl`: every text of 4,000 characters or
more (--characters), over and over up to 16 MB. The tokenizer is FOLDER's, or the one whose vocabulary
FILE has in tiktoken's form (Qwen's: `resources/qwen.tiktoken` of the package dashscope), or one like Qwen's, of 16,384 tokens, that is
trained on the texts. Ours is the module that all rules count with, its check of the first texts included; hf_loop calls the
tokenizer once a text, hf_batch for 64 at a time.

`filters`: what `curate_traces` asks of every response: its structure, phrases repeated in a row, frequent n-grams; in MB of text
a second, beside reading the text from Parquet, and the time of the worst responses of 32,768 tokens.

The responses of `ngrams` and `filters` are made, always the same: words of a Zipf distribution, numbers, formulas and line ends;
22 sentences of 39 tokens or so that are frequent, some that just are not, and a loop in one response.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "workflow" / "scripts")]

_SIZE, _MAX_COUNT = 20, 20
_RESPONSE_TOKENS = 400
_ROWS = 256
_TRAINED_TOKENS = 16_384
_LONG = 32_768
_REAL_BYTES = 16_000_000
#: How Qwen2 and Qwen3 split text.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# --- input -----------------------------------------------------------------------------------------------------------


def vocabulary(rng: np.random.Generator) -> list[str]:
    """20,000 made-up words, with formulas, numbers and ends of sentences among them."""
    letters = list("etaoinshrdlucmfwygpbvk")
    words = ["".join(rng.choice(letters, size=int(rng.integers(2, 9)))) for _ in range(20_000)]
    words[5::40] = [f"${word[0]}^{{{len(word)}}}$" for word in words[5::40]]
    words[9::25] = [str(number) for number in rng.integers(0, 1000, len(words[9::25]))]
    words[3::30] = [f"{word}.\n\n" for word in words[3::30]]
    return words


def make_texts(tokens: int) -> Iterator[str]:
    """Responses of some 400 tokens each, in the format."""
    rng = np.random.default_rng(0)
    words = vocabulary(rng)
    share = 1 / np.arange(1, len(words) + 1)
    share /= share.sum()
    responses = max(tokens // _RESPONSE_TOKENS, 100)

    def say(count: int) -> str:
        return " ".join(words[place] for place in rng.choice(len(words), count, p=share))

    planted: list[list[str]] = [[] for _ in range(responses)]
    for number in range(44):
        sentence = say(26)
        # Half of them are frequent, the others occur as often as is allowed.
        for place in rng.choice(responses, 24 if number < 22 else _MAX_COUNT, replace=False):
            planted[place].append(sentence)
    planted[0].append(f"{say(30)} " * 25)
    lengths = rng.integers(150, 350, responses)
    for sentences, length in zip(planted, lengths.tolist(), strict=True):
        thinking = " ".join([say(length), *(f"{sentence} {say(5)}" for sentence in sentences)])
        yield f"<think>{thinking}</think><answer>{say(8)}</answer>"


def train_tokenizer(texts: list[str], folder: Path) -> None:
    """A tokenizer of Qwen's kind from ``texts``, in ``folder``."""
    from tokenizers import models, pre_tokenizers, trainers

    core = _like_qwens(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=_TRAINED_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    _save(core, folder)


def tokenizer_of_ranks(ranks: Path, folder: Path) -> None:
    """The tokenizer of a vocabulary in tiktoken's form, lines of a token in base 64 and its rank, in ``folder``.

    The two tokens that make a third are what merging by lower ranks alone leaves of it.
    """
    from tokenizers import models

    from whichteacher.tokens import _byte_alphabet

    rank_of = {}
    for line in ranks.read_bytes().splitlines():
        token, rank = line.split()
        rank_of[base64.b64decode(token)] = int(rank)
    letters = {byte: letter for letter, byte in _byte_alphabet().items()}
    spelled = {token: "".join(letters[byte] for byte in token) for token in rank_of}
    merges = []
    for token, rank in sorted(rank_of.items(), key=lambda item: item[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [rank_of.get(first + second, rank) for first, second in itertools.pairwise(parts)]
            place = pairs.index(min(pairs))
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            merges.append((spelled[parts[0]], spelled[parts[1]]))
    _save(_like_qwens(models.BPE({spelled[token]: rank for token, rank in rank_of.items()}, merges)), folder)


def _like_qwens(model: Any) -> Any:
    """A tokenizer that normalises and splits as Qwen2's does."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    core = Tokenizer(model)
    core.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_PATTERN), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    return core


def _save(core: Any, folder: Path) -> None:
    from tokenizers import AddedToken

    core.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    folder.mkdir(parents=True)
    core.save(str(folder / "tokenizer.json"))


def reference(folder: Path) -> dict[str, Any]:
    """A tokenizer's folder as a model reference."""
    return {"model": str(folder), "revision": None}


def make_responses(folder: Path, tokens: int) -> None:
    """`responses.parquet`: text and token ids."""
    from whichteacher.tokens import load_tokenizer

    texts = list(make_texts(tokens))
    train_tokenizer(texts[:4000], folder / "tokenizer")
    tokenizer = load_tokenizer(reference(folder / "tokenizer"))
    schema = pa.schema([("text", pa.string()), ("tokens", pa.list_(pa.int32()))])
    with pq.ParquetWriter(folder / "responses.parquet", schema, compression="zstd", compression_level=3) as writer:
        for start in range(0, len(texts), 4096):
            part = texts[start : start + 4096]
            writer.write_table(pa.table({"text": part, "tokens": tokenizer.encode(part)}, schema=schema))


def make_real(folder: Path, data: Path, characters: int, tokenizer: str | None) -> None:
    """`texts.parquet` of the long texts in ``data``, and a tokenizer where none is given."""
    texts = {
        value
        for path in sorted((data / "outputs").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        for value in json.loads(line).values()
        if isinstance(value, str) and len(value) >= characters
    }
    size = sum(len(text.encode()) for text in texts)
    pq.write_table(pa.table({"text": sorted(texts) * -(-_REAL_BYTES // size)}), folder / "texts.parquet")
    if tokenizer is None:
        train_tokenizer(sorted(texts), folder / "tokenizer")


def written_texts(folder: Path) -> list[str]:
    """The texts that were written."""
    return pq.read_table(folder / "responses.parquet", columns=["text"])["text"].to_pylist()


def token_batches(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and bounds of the responses."""
    with pq.ParquetFile(folder / "responses.parquet", buffer_size=2**20) as file:
        for batch in file.iter_batches(_ROWS, columns=["tokens"]):
            lists = batch.column(0)
            yield (
                lists.flatten().to_numpy().copy(),
                lists.offsets.to_numpy().astype(np.int64) - lists.offsets[0].as_py(),
            )


# --- n-grams: each variant returns the frequent ones and their counts --------------------------------------------------


def ours(folder: Path) -> dict[str, int]:
    """The four rules."""
    import count_candidate_ngrams
    import count_ngrams
    import find_candidate_ngrams
    import find_frequent_ngrams

    from whichteacher.ngrams import TokenBatch
    from whichteacher.rule import Progress
    from whichteacher.schemas import NGRAM_COUNTS
    from whichteacher.tables import read_table

    settings = {"size": _SIZE, "max_count": _MAX_COUNT}
    paths = {name: str(folder / f"{name}.parquet") for name in ("sketch", "candidates", "tallies", "frequent")}
    progress = Progress("ours", 0)
    batches = (TokenBatch(*batch) for batch in token_batches(folder))
    count_ngrams.sketch(batches, paths["sketch"], settings, 1, progress)
    find_candidate_ngrams.main([paths["sketch"]], paths["candidates"], settings, "ours")
    batches = (TokenBatch(*batch) for batch in token_batches(folder))
    count_candidate_ngrams.tally(batches, paths["candidates"], paths["tallies"], settings, progress)
    find_frequent_ngrams.main([paths["tallies"]], paths["frequent"], settings)
    found = read_table(paths["frequent"], NGRAM_COUNTS)
    return dict(zip(found["ngram"].to_pylist(), found["count"].to_pylist(), strict=True))


def counter(folder: Path) -> dict[str, int]:
    """A Counter of tuples."""
    counts: Counter[tuple[int, ...]] = Counter()
    for tokens, bounds in token_batches(folder):
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            response = tokens[start:end].tolist()
            counts.update(zip(*(response[place:] for place in range(_SIZE)), strict=False))
    return {" ".join(map(str, window)): count for window, count in counts.items() if count > _MAX_COUNT}


def numba_two_pass(folder: Path) -> dict[str, int]:
    """Byte counters, then hashes."""
    raise_counters, gather = compiled_peer()
    parts = list(token_batches(folder))
    tokens = np.concatenate([part for part, _ in parts])
    bounds = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(ends) for _, ends in parts]))])
    table = np.zeros(2**27, dtype=np.uint8)
    high = raise_counters(tokens, bounds, _SIZE, table)
    hashes, places = gather(tokens, bounds, _SIZE, table, _MAX_COUNT, high)
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    return {
        " ".join(map(str, tokens[places[row] : places[row] + _SIZE].tolist())): int(count)
        for row, count in zip(first.tolist(), counts.tolist(), strict=True)
        if count > _MAX_COUNT
    }


@functools.cache
def compiled_peer() -> tuple[Callable[..., int], Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """The two passes of `numba_two_pass`."""
    import numba

    base = np.uint64(0x100000001B3)
    shift = np.uint64(64 - 27)

    @numba.njit(cache=True)
    def mix(value: np.uint64) -> np.uint64:
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        return value ^ (value >> np.uint64(33))

    @numba.njit(cache=True)
    def raise_counters(tokens: np.ndarray, bounds: np.ndarray, size: int, table: np.ndarray) -> int:
        power = np.uint64(1)
        for _ in range(size):
            power *= base
        hits = 0
        for response in range(len(bounds) - 1):
            value = np.uint64(0)
            start = bounds[response]
            for place in range(start, bounds[response + 1]):
                value = value * base + np.uint64(tokens[place] + 1)
                if place >= start + size:
                    value -= np.uint64(tokens[place - size] + 1) * power
                if place >= start + size - 1:
                    slot = mix(value) >> shift
                    count = table[slot]
                    if count < 255:
                        table[slot] = count + 1
                    hits += count >= 20
        return hits

    @numba.njit(cache=True)
    def gather(
        tokens: np.ndarray, bounds: np.ndarray, size: int, table: np.ndarray, limit: int, hits: int
    ) -> tuple[np.ndarray, np.ndarray]:
        power = np.uint64(1)
        for _ in range(size):
            power *= base
        hashes, places = np.empty(hits * (limit + 1), np.uint64), np.empty(hits * (limit + 1), np.int64)
        found = 0
        for response in range(len(bounds) - 1):
            value = np.uint64(0)
            start = bounds[response]
            for place in range(start, bounds[response + 1]):
                value = value * base + np.uint64(tokens[place] + 1)
                if place >= start + size:
                    value -= np.uint64(tokens[place - size] + 1) * power
                if place >= start + size - 1:
                    mixed = mix(value)
                    if table[mixed >> shift] > limit:
                        hashes[found], places[found] = mixed, place - size + 1
                        found += 1
        return hashes[:found], places[:found]

    return raise_counters, gather


def read(folder: Path) -> dict[str, int]:
    """The file, no more."""
    for _ in token_batches(folder):
        pass
    return {}


NGRAM_VARIANTS: dict[str, Callable[[Path], dict[str, int]]] = {
    "ours": ours,
    "counter": counter,
    "numba_two_pass": numba_two_pass,
    "read": read,
}


# --- tokens: each variant returns the number of tokens of every text ------------------------------------------------------


def count_tokens(variant: str, folder: Path, tokenizer: str) -> Callable[[], list[int]]:
    """What a variant does once its tokenizer is loaded."""
    from whichteacher.tokens import load_tokenizer

    texts = pq.read_table(folder / "texts.parquet")["text"].to_pylist()
    loaded = load_tokenizer(reference(Path(tokenizer)))
    if not loaded.faster:
        raise SystemExit("this tokenizer encodes itself: there is nothing to compare")
    if variant == "ours":
        return lambda: loaded.count(texts)
    own = loaded.own
    own.encode("warm")
    if variant == "hf_loop":
        return lambda: [len(own.encode(text, add_special_tokens=False)) for text in texts]
    return lambda: [
        len(ids)
        for start in range(0, len(texts), 64)
        for ids in own(texts[start : start + 64], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    ]


TOKEN_VARIANTS = ("ours", "hf_loop", "hf_batch")


# --- filters ------------------------------------------------------------------------------------------------------------


def filter_variants(folder: Path) -> dict[str, Callable[[], int]]:
    """Each filter on all responses: how many it finds."""
    from curate_traces import structure_fault

    from whichteacher.ngrams import FrequentNgrams
    from whichteacher.repetition import find_repeat
    from whichteacher.schemas import NGRAM_COUNTS
    from whichteacher.tables import read_table

    texts = written_texts(folder)
    tokens = [
        part[start:end]
        for part, bounds in token_batches(folder)
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    ours(folder)
    frequent = FrequentNgrams(read_table(folder / "frequent.parquet", NGRAM_COUNTS)["ngram"], _SIZE)
    turns = [{"role": "user", "content": "x"}]
    alike = np.tile(np.arange(30, dtype=np.int32), 9)
    nearly = np.concatenate([np.append(alike, np.int32(1000 + place)) for place in range(121)])[:_LONG].astype(np.int32)
    other = np.random.default_rng(0).integers(0, 50, _LONG).astype(np.int32)
    return {
        "read": lambda: pq.read_table(folder / "responses.parquet", columns=["text"]).num_rows,
        "structure": lambda: sum(structure_fault(turns, text, "tags") is not None for text in texts),
        "repetition": lambda: sum(find_repeat(part, 20, 10) is not None for part in tokens),
        "frequent_ngrams": lambda: sum(frequent.first(part) is not None for part in tokens),
        "repetition, 32,768 tokens that nearly repeat": lambda: int(find_repeat(nearly, 20, 10) is not None),
        "repetition, 32,768 tokens of 50 kinds": lambda: int(find_repeat(other, 20, 10) is not None),
    }


def measure_filters(folder: Path, repeats: int) -> None:
    """Print the table of `filters`."""
    variants = filter_variants(folder)
    megabytes = sum(len(text.encode()) for text in written_texts(folder)) / 1e6
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    found = {name: run() for name, run in variants.items()}  # also compiles
    for _ in range(repeats):
        for name, run in variants.items():
            start = time.process_time()
            if run() != found[name]:
                raise SystemExit(f"{name} finds something else this time")
            seconds[name].append(time.process_time() - start)
    print(f"{megabytes:.1f} MB of text, {found['read']:,} responses; medians of {repeats} (lowest to highest)")
    for name, times in seconds.items():
        middle, low, high = statistics.median(times), min(times), max(times)
        if "32,768" in name:
            print(f"{name:<46} {middle * 1e3:8.2f} ms ({low * 1e3:.2f} to {high * 1e3:.2f})")
        else:
            rates = f"({megabytes / high:.0f} to {megabytes / low:.0f})"
            print(f"{name:<46} {megabytes / middle:8.0f} MB/s {rates}, finds {found[name]}")


# --- measuring ---------------------------------------------------------------------------------------------------------


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` returns, and its seconds, CPU seconds and the process's peak memory in MiB."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, {"seconds": time.monotonic() - start, "cpu": cpu, "peak_mib": after.ru_maxrss / 1024}


def in_process(*arguments: str) -> dict[str, Any]:
    """Run one of the inner commands of this file; its last line is a JSON object."""
    run = subprocess.run([sys.executable, __file__, "inner", *arguments], check=False, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def compare(variants: list[str], repeats: int, work: float, unit: str, *command: str, silent: tuple[str, ...]) -> None:
    """Run ``variants`` in turn and print their table; ``work`` (in ``unit``) is what each does. Those of ``silent`` have no
    answer."""
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for _ in range(repeats):
        for variant in variants:
            runs[variant].append(in_process(command[0], command[1], variant, *command[2:]))
    answers = {run["digest"] for variant, found in runs.items() if variant not in silent for run in found}
    if len(answers) > 1:
        raise SystemExit("the variants give different answers")
    print(f"{runs['ours'][0]['answer']}; medians of {repeats}, ratios: CPU seconds of the variant / of ours")
    print(
        f"{'variant':<16} {'CPU s':>8} {'wall s':>8} {'peak MiB':>9} {unit + '/CPU s':>14}  ratio (lowest to highest)"
    )
    for variant, found in runs.items():
        cpu = statistics.median(run["cpu"] for run in found)
        wall = statistics.median(run["seconds"] for run in found)
        ratios = [run["cpu"] / own["cpu"] for run, own in zip(found, runs["ours"], strict=True)]
        told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        peak = max(run["peak_mib"] for run in found)
        print(f"{variant:<16} {cpu:8.2f} {wall:8.2f} {peak:9.0f} {work / cpu:14.2f}  {told}")


def inner(command: str, folder: Path, *arguments: str) -> None:
    """The commands that the measuring process starts."""
    if command == "make":
        make_responses(folder, int(arguments[0]))
        tokens = sum(len(part) for part, _ in token_batches(folder))
        print(json.dumps({"tokens": tokens, "bytes": sum(len(text.encode()) for text in written_texts(folder))}))
    elif command == "make_real":
        make_real(folder, Path(arguments[0]), int(arguments[1]), arguments[2] or None)
        texts = pq.read_table(folder / "texts.parquet")["text"].to_pylist()
        print(json.dumps({"texts": len(texts), "bytes": sum(len(text.encode()) for text in texts)}))
    elif command == "ngrams":
        variant = NGRAM_VARIANTS[arguments[0]]
        with tempfile.TemporaryDirectory() as small:
            # Loads and compiles.
            shorten(folder / "responses.parquet", Path(small) / "responses.parquet")
            variant(Path(small))
        found, costs = measured(lambda: variant(folder))
        told = hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()
        print(json.dumps({"digest": told, "answer": f"{len(found)} n-grams are frequent", **costs}))
    elif command == "tokens":
        counts, costs = measured(count_tokens(arguments[0], folder, arguments[1]))
        told = hashlib.sha256(json.dumps(counts).encode()).hexdigest()
        print(json.dumps({"digest": told, "answer": f"{sum(counts):,} tokens", **costs}))


def shorten(path: Path, target: Path) -> None:
    """The first responses of a file, one of them so often that its n-grams are frequent."""
    with pq.ParquetFile(path) as file:
        rows = next(file.iter_batches(50))
    pq.write_table(pa.Table.from_batches([rows, *[rows.slice(1, 1)] * 30]), target)


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["inner"]:
        inner(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("ngrams", "tokens", "filters"):
        command = commands.add_parser(name)
        command.add_argument("--repeats", type=int, default=5)
        if name == "tokens":
            command.add_argument("data", type=Path)
            command.add_argument("--tokenizer", default="")
            command.add_argument("--ranks", type=Path)
            command.add_argument("--characters", type=int, default=4000)
        else:
            command.add_argument("--tokens", type=int, default=10_000_000)
        if name == "ngrams":
            command.add_argument("--without", nargs="*", choices=list(NGRAM_VARIANTS)[1:], default=[])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if chosen.command == "tokens":
            if chosen.ranks is not None:
                chosen.tokenizer = str(Path(scratch) / chosen.ranks.stem)
                tokenizer_of_ranks(chosen.ranks, Path(chosen.tokenizer))
            made = in_process("make_real", scratch, str(chosen.data), str(chosen.characters), chosen.tokenizer)
            megabytes = made["bytes"] / 1e6
            print(f"{made['texts']} real texts, {megabytes:.1f} MB; {chosen.tokenizer or 'a trained tokenizer'}")
            tokenizer = chosen.tokenizer or str(Path(scratch) / "tokenizer")
            compare(list(TOKEN_VARIANTS), chosen.repeats, megabytes, "MB", "tokens", scratch, tokenizer, silent=())
            return
        made = in_process("make", scratch, str(chosen.tokens))
        if chosen.command == "filters":
            measure_filters(Path(scratch), chosen.repeats)
            return
        print(f"{made['tokens']:,} tokens, {made['bytes'] / 1e6:.1f} MB of text")
        variants = [name for name in NGRAM_VARIANTS if name not in chosen.without]
        compare(variants, chosen.repeats, made["tokens"] / 1e6, "M tokens", "ngrams", scratch, silent=("read",))


if __name__ == "__main__":
    main()

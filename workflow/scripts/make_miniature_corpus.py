"""Make the miniature's corpus: queries of every category, and planted rows that the corpus stage must deal with.

Reads nothing but its settings. Writes one JSON-lines file per source, and ``planted.json``: per kind of planted row the
list of ``[source, row]``, where the row is its id, or ``file:line`` for a line that cannot be used.

Everything follows from the seed. Each category is drawn from a generator of its own and planted rows come first in
their files, so more queries are appended and move nothing that was there.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from whichteacher.miniature.benchmarks import make_benchmark
from whichteacher.miniature.problems import Problem, draw_benchmark, draw_problem, expression
from whichteacher.rule import InputError
from whichteacher.tables import write_json, write_text

#: Kinds whose rows stay in the corpus, and kinds that a step must drop, with the reason it gives.
SURVIVING = ("near_duplicate", "boilerplate")
DROPPED = {
    "invalid_json": "invalid_json",
    "wrong_type": "wrong_type",
    "missing_column": "missing_column",
    "lone_surrogate": "invalid_text",
    "nul": "invalid_text",
    "empty": "empty",
    "incomplete": "incomplete",
    "dangling": "incomplete",
    "lost_characters": "broken_encoding",
    "misread": "broken_encoding",
    "private_use": "unicode_ratio",
    "url": "url",
    "markdown_table": "table",
    "html_table": "table",
    "image": "image",
    "duplicate": "duplicate",
    "duplicate_white_space": "duplicate",
    "duplicate_without_answer": "duplicate",
    "contaminated_exact": "contaminated_exact",
    "contaminated_framed": "contaminated_ngram",
    "contaminated_reworded": "contaminated_embedding",
}
_MALFORMED = ("invalid_json", "wrong_type", "missing_column", "lone_surrogate", "nul")

_PATIENCE = 1000
_BLANKS = ("", " ", "\n\n", "\t \t", "​", "　")
_STUMPS = ("Why", "Is", "2 +", "How", "f(", "So", "Mia", "And", "?", "a =", "10", "Ok.")
_FRAMES = (
    "Here is a question from a book: {}",
    "{} Explain your answer.",
    "I could not solve this one.\n{}\nCan you help?",
)
_GREETINGS = ("Hello! {}", "{} Thank you.", "One more question: {}")

Row = dict[str, object]
#: The rows to plant in one source: kind, and the row or the raw line.
Planted = dict[str, list[tuple[str, Row | str]]]


def task(problem: Problem) -> str | None:
    """What a problem of mathematics or code asks for, whatever its wording; None for other categories."""
    asked = problem.facts.get("terms") if problem.category == "math" else problem.facts.get("steps")
    return None if asked is None else f"{problem.category} {json.dumps(asked)}"


def draw_queries(category: str, count: int, seed: int, taken: set[str]) -> list[Problem]:
    """``count`` distinct problems of ``category``, none of whose tasks is ``taken``; the first ones do not depend on
    ``count``. Raises :class:`InputError` where there are not so many."""
    rng = random.Random(f"{seed}/{category}")
    problems: dict[tuple[tuple[str, str], ...], Problem] = {}
    patience = _PATIENCE
    while len(problems) < count:
        problem = draw_problem(category, rng)
        if problem.turns in problems or task(problem) in taken:
            patience -= 1
        else:
            problems[problem.turns] = problem
            patience = _PATIENCE
        if not patience:
            raise InputError(
                f"category {category}: only {len(problems)} distinct queries found, {count} wanted: lower config key "
                f"miniature.queries.{category}"
            )
    return list(problems.values())


def make_corpus(
    sources: Mapping[str, str],
    queries: Mapping[str, int],
    benchmarks: Mapping[str, int],
    planted: int,
    seed: int,
) -> tuple[dict[str, list[str]], dict[str, list[list[str]]]]:
    """The lines of each source's file, and what was planted where.

    Args:
        sources: Category of each source.
        queries: Distinct queries per category, planted rows not counted.
        benchmarks: Problems per benchmark: what the contaminated rows copy.
        planted: Rows to plant of each kind, spread over the sources (fewer where the benchmarks have fewer problems).
        seed: Seed of everything.
    """
    held_out = [make_benchmark(name, count) for name, count in benchmarks.items()]
    tasks = {asked for problems in held_out for asked in map(task, problems) if asked}
    innocents = _draw_innocents(list(benchmarks), planted, seed, tasks)
    taken = tasks | {asked for asked in map(task, innocents) if asked}
    drawn = {
        source: [
            problem.row(f"{source}-{number:05d}")
            for number, problem in enumerate(draw_queries(category, queries[category], seed, taken))
        ]
        for source, category in sources.items()
    }
    rows: Planted = {source: [] for source in sources}
    for kind, source, row in _plant(sources, drawn, held_out, innocents, planted, seed):
        rows[source].append((kind, row))
    lines: dict[str, list[str]] = {}
    record: dict[str, list[list[str]]] = {kind: [] for kind in (*DROPPED, *SURVIVING)}
    for source in sources:
        lines[source] = []
        for number, (kind, row) in enumerate(rows[source], start=1):
            name = f"{source}-planted-{kind}-{len(record[kind]):03d}"
            line = row.replace("<id>", name) if isinstance(row, str) else _line({**row, "id": name})
            lines[source].append(line)
            record[kind].append([source, f"{source}.jsonl:{number}" if kind in _MALFORMED else name])
        lines[source] += map(_line, drawn[source])
    return lines, record


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def _draw_innocents(benchmarks: list[str], count: int, seed: int, taken: set[str]) -> list[Problem]:
    """Problems drawn like those of the benchmarks, with the same boilerplate, but none of their tasks."""
    rng = random.Random(f"{seed}/planted/boilerplate")
    innocents: dict[str, Problem] = {}
    for number in range(count * _PATIENCE if benchmarks else 0):
        problem = draw_benchmark(benchmarks[number % len(benchmarks)], rng)
        if task(problem) not in taken:
            innocents.setdefault(str(task(problem)), problem)
        if len(innocents) == count:
            break
    return list(innocents.values())


def _plant(
    sources: Mapping[str, str],
    drawn: Mapping[str, list[Row]],
    held_out: list[list[Problem]],
    innocents: list[Problem],
    planted: int,
    seed: int,
) -> Iterator[tuple[str, str, Row | str]]:
    """Kind, source and row (or raw line) of everything to plant, kind by kind."""
    names = list(sources)

    def place(k: int) -> str:
        return names[k % len(names)]

    for kind in _MALFORMED:
        for k in range(planted):
            yield kind, place(k), _malformed(kind, drawn[place(k)][0])
    for kind, make in _DIRTY.items():
        rng = random.Random(f"{seed}/planted/{kind}")
        for k in range(planted):
            base = draw_problem(sources[place(k)], rng)
            yield kind, place(k), _with_last(base.row(""), make(base.prompt, k, rng))
    # Each kind of copy takes originals of its own, as far as there are enough.
    per_source = -(-planted // len(names))
    for block, (kind, change) in enumerate(_COPIES.items()):
        for k in range(planted):
            originals = drawn[place(k)]
            original = originals[(block * per_source + k // len(names)) % len(originals)]
            yield kind, place(k), _with_last(original, change(original["turns"][-1]["content"], k))
    checked = [name for name in names if drawn[name][0]["answer"] or drawn[name][0]["tests"]]
    for k in range(planted if checked else 0):
        home = checked[k % len(checked)]
        block = len(_COPIES) * per_source
        original = drawn[home][(block + k // len(checked)) % len(drawn[home])]
        away = names[(names.index(home) + 1 + k) % len(names)]
        yield "duplicate_without_answer", away, {**original, "answer": None, "answer_type": None, "tests": None}
    problems = [problem for group in zip(*_padded(held_out), strict=True) for problem in group if problem][:planted]
    for k, problem in enumerate(problems):
        yield "contaminated_exact", place(k), _with_last(problem.row(""), problem.prompt + " \n" * (k % 2))
        yield (
            "contaminated_framed",
            place(k),
            _with_last(problem.row(""), _FRAMES[k % len(_FRAMES)].format(problem.prompt)),
        )
        yield "contaminated_reworded", place(k), _with_last(problem.row(""), reword(problem))
    for k, problem in enumerate(innocents):
        home = next((name for name in names if sources[name] == problem.category), place(k))
        yield "boilerplate", home, problem.row("")


def _padded(lists: list[list[Problem]]) -> list[list[Problem | None]]:
    longest = max(map(len, lists), default=0)
    return [[*problems, *[None] * (longest - len(problems))] for problems in lists]


def _with_last(row: Row, content: str) -> Row:
    """``row`` with another last message."""
    turns = list(row["turns"])
    return {**row, "turns": [*turns[:-1], {**turns[-1], "content": content}]}


def _malformed(kind: str, row: Row) -> str:
    """A line that cannot be used; ``<id>`` stands for its id."""
    row = {**row, "id": "<id>"}
    if kind == "invalid_json":
        return _line(row)[: len(_line(row)) // 2]
    if kind == "wrong_type":
        return _line({**row, "turns": 7})
    if kind == "missing_column":
        return _line({name: value for name, value in row.items() if name != "turns"})
    return json.dumps(_with_last(row, "What is \ud83d ?" if kind == "lone_surrogate" else "What is \0 ?"))


def _replace(characters: str) -> Callable[[str, int, random.Random], str]:
    """Replaces half of a text's characters."""
    return lambda text, _k, rng: "".join(rng.choice(characters) if rng.random() < 0.5 else mark for mark in text)


def _misread(text: str, k: int, _rng: random.Random) -> str:
    """``text`` and a remark whose UTF-8 was read as Windows-1252."""
    remark = (" It’s for the café.", " “Köln” asked.", " Señor Muñoz asked.")[k % 3]
    return text + remark.encode("utf-8").decode("cp1252", errors="replace").replace("\ufffd", "")


#: How each kind of fault is put into a clean prompt, given its number and a generator.
_DIRTY: dict[str, Callable[[str, int, random.Random], str]] = {
    "empty": lambda _text, k, _rng: _BLANKS[k % len(_BLANKS)],
    "incomplete": lambda _text, k, _rng: _STUMPS[k % len(_STUMPS)],
    "dangling": lambda text, k, _rng: text.rstrip(".?") + (", and", " such that", ",")[k % 3],
    "lost_characters": _replace("\ufffd"),
    "misread": _misread,
    "private_use": _replace("\ue000\uf8ff"),
    "url": lambda text, k, _rng: f"{text} See {('https://example.org/page/', 'www.example.org/')[k % 2]}{k} for more.",
    "markdown_table": lambda text, k, _rng: f"{text}\n\n| item | count |\n| --- | :-: |\n| beads | {k} |",
    "html_table": lambda text, k, _rng: f"{text}\n<table><tr><td>beads</td><td>{k}</td></tr></table>",
    "image": lambda text, k, _rng: text + ("\n![beads](beads.png)", " The beads are shown in the figure.")[k % 2],
}
#: How a copy of a query in the same source differs from it.
_COPIES: dict[str, Callable[[str, int], str]] = {
    "duplicate": lambda text, _k: text,
    "duplicate_white_space": lambda text, k: (f"  {text}\n", text.replace(" ", "\n"), text.replace(" ", " \t "))[k % 3],
    "near_duplicate": lambda text, k: _GREETINGS[k % len(_GREETINGS)].format(text),
}


def reword(problem: Problem) -> str:
    """The same task in other words: no run of eight words is left, names and numbers stay."""
    if problem.kind == "arithmetic":
        return f"Please work out {expression(problem.facts['terms'])} for me."
    if problem.kind == "word_problem":
        return re.sub(
            r"^(\w+) has (\d+) (\w+)\.(.*) How many .*$",
            r"At first, \1 has \2 \3.\4 Tell me the number of \3 that \1 has then.",
            problem.prompt,
        )
    if problem.category == "code":
        text = problem.prompt.replace(", then ", ", next ").removeprefix("Write ")
        return re.sub(r"(Python \w+(?: f?\w+\(x\))?)", r"\1 is wanted", text[0].upper() + text[1:], count=1)
    raise ValueError(f"no rewording for problems of kind {problem.kind!r}")


def main(
    paths: Mapping[str, str],
    record: str,
    sources: Mapping[str, str],
    queries: Mapping[str, int],
    benchmarks: Mapping[str, int],
    planted: int,
    seed: int,
) -> None:
    """Write the file of every source to ``paths[source]``, and what was planted to ``record``.

    Raises :class:`InputError` where sources and categories do not fit.
    """
    for source, category in sources.items():
        if category not in queries:
            raise InputError(f"source {source} is made by the project, but miniature.queries has no {category}: add it")
        if Path(paths[source]).name != f"{source}.jsonl":
            raise InputError(f"corpus.sources.{source}.path is {paths[source]}: call the file {source}.jsonl")
    if len(set(sources.values())) < len(sources):
        raise InputError("two sources made by the project share a category: give each category one source")
    lines, rows = make_corpus(sources, queries, benchmarks, planted, seed)
    for source, path in paths.items():
        write_text(path, "\n".join(lines[source]) + "\n")
        print(f"{source}: {len(lines[source])} lines")
    write_json(record, rows)


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        sources = snakemake.params.sources  # noqa: F821
        main(
            dict(zip(sources, snakemake.output.sources, strict=True)),  # noqa: F821
            snakemake.output.planted,  # noqa: F821
            sources,
            snakemake.params.queries,  # noqa: F821
            snakemake.params.benchmarks,  # noqa: F821
            snakemake.params.planted,  # noqa: F821
            snakemake.params.seed,  # noqa: F821
        )

"""A dataset as it is published: JSON lines in the schema of the paper's release, the same rows as Parquet, and what describes them.

Reads TRACES, the ledgers down to this dataset, and what tells how the verdicts came about and can be trusted (COLLECTED of the
teacher, LABELLED_CASES, REVERIFIED). Writes a folder:

- ``<category>.jsonl`` and ``parquet/<category>/train-*.parquet`` (see :mod:`whichteacher.release`); a category without traces
  has neither, for loaders fail on empty files;
- ``manifest.json``, from which ``README.md`` (the card), ``croissant.json`` and ``ro-crate-metadata.json`` are made;
- ``SHA256SUMS`` of all of them.

The folder is checked (:mod:`whichteacher.release_checks`) before it takes its place.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from whichteacher.ledger import merge
from whichteacher.release import COLUMNS, FILES, Writer, Written, released_row
from whichteacher.release_checks import Findings, advice, check
from whichteacher.release_metadata import (
    CARD,
    CRATE,
    CROISSANT,
    MANIFEST,
    SUMS,
    Tally,
    card,
    code_version,
    croissant,
    ledger_steps,
    package_versions,
    strictest,
    trust_figures,
    without_places,
    write_crate,
)
from whichteacher.rule import InputError, Progress
from whichteacher.schemas import COLLECTED, LABELLED_CASES, LEDGER, REVERIFIED, TRACES
from whichteacher.tables import atomic_folder, digest_file, read_frame, read_rows, read_table, write_json, write_text

_ENGINE = ("model", "model_digest", "engine", "engine_version", "hardware")
_VERIFIER = ("verifier", "verifier_version")


def write_files(dataset: str, folder: Path) -> tuple[list[Written], Tally, Findings]:
    """Write the rows of ``dataset``; returns the files, the counts, and what looks like a secret in the texts.

    Raises :class:`InputError` where there are no rows.
    """
    writers: dict[str, Writer] = {}
    tally, findings = Tally(), Findings()
    with Progress("export_dataset", 0) as progress:
        for trace in read_rows(dataset, TRACES, [*COLUMNS, "licence", "output_tokens"]):
            name = FILES[trace["category"]]
            if name not in writers:
                writers[name] = Writer(folder, name)
            writer = writers[name]
            findings.look(writer.write(released_row(trace)), f"{name}.jsonl:{writer.rows}")
            tally.add(trace)
            progress.advance()
    if not writers:
        raise InputError(f"{dataset}: no traces: see the ledger of match_datasets")
    return [file for name in sorted(writers) for file in writers[name].close()], tally, findings


def accepted_by(attempts: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """How many accepted attempts (COLLECTED) have each combination of ``columns``, ordered by these."""
    counted = []
    for path in attempts:
        table = read_table(path, COLLECTED, [*columns, "accepted"])
        counted.append(table.filter(table["accepted"]).group_by(list(columns)).aggregate([([], "count_all")]))
    total = pa.concat_tables(counted).group_by(list(columns)).aggregate([("count_all", "sum")])
    rows = total.sort_by([(column, "ascending") for column in columns]).to_pylist()
    return [{column: row[column] for column in columns} | {"accepted": row["count_all_sum"]} for row in rows]


def teacher_facts(name: str, label: str, settings: Mapping[str, Any], attempts: Sequence[str]) -> dict[str, Any]:
    """Who answered: where the teacher comes from, the engines that ran, the verifiers that accepted."""
    if settings["engine"] == "dataset":
        kind, place, revision = "published", settings["traces"], settings["traces_revision"]
    else:
        kind = "endpoint" if settings["engine"] == "openai" else "model"
        place, revision = settings["model"], settings["revision"]
    verifiers = accepted_by(attempts, _VERIFIER)
    return {
        "name": name,
        "label": label,
        "origin": {"kind": kind, "name": place, "revision": revision},
        "engines": accepted_by(attempts, _ENGINE),
        "verifiers": [
            {"verifier": row["verifier"], "version": row["verifier_version"], "accepted": row["accepted"]}
            for row in verifiers
        ],
    }


def main(
    dataset: str,
    ledgers: Sequence[str],
    attempts: Sequence[str],
    cases: str,
    again: str,
    folder: str,
    control: str,
    teacher: str,
    label: str,
    study: Mapping[str, Any],
) -> None:
    """Export; ``study`` holds ``name``, ``settings`` (with the blocks ``teacher``, ``corpus``, ``verification``, ``curation``) and
    ``release``, all plain JSON types."""
    with atomic_folder(folder) as place:
        written, tally, findings = write_files(dataset, place)
        categories, sources = tally.categories(), tally.sources()
        used = {source["source"] for source in sources}
        corpus = study["settings"]["corpus"]
        settings = study["settings"] | {
            "corpus": corpus | {"sources": {name: block for name, block in corpus["sources"].items() if name in used}}
        }
        manifest = without_places(
            {
                "name": f"{study['name']}-{control}-{teacher}",
                "title": f"{label} traces ({study['name']}, {control})",
                "study": study["name"],
                "control": control,
                "rows": sum(counts["rows"] for counts in categories.values()),
                "categories": categories,
                "sources": sources,
                "strictest": strictest(source["licence"] for source in sources),
                "teacher": teacher_facts(teacher, label, settings["teacher"], attempts),
                "ledger": ledger_steps(merge(read_frame(path, LEDGER) for path in ledgers).to_dict("records")),
                "trust": trust_figures(
                    read_table(cases, LABELLED_CASES).to_pylist(),
                    [row for row in read_table(again, REVERIFIED).to_pylist() if row["teacher"] == teacher],
                ),
                "release": study["release"],
                "settings": settings,
                "code": code_version(),
                "packages": package_versions(),
                "files": [file._asdict() | stamp(place / file.path) for file in written],
            }
        )
        manifest["findings"] = findings.lines() + advice(manifest)
        write_json(place / MANIFEST, manifest)
        write_text(place / CARD, card(manifest))
        write_json(place / CROISSANT, croissant(manifest))
        described = (MANIFEST, CARD, CROISSANT)
        write_crate(place, manifest, [{"path": name} | stamp(place / name) for name in described])
        metadata = (*described, CRATE)
        sums = {file["path"]: file["sha256"] for file in manifest["files"]}
        sums |= {name: digest_file(place / name) for name in metadata}
        write_text(place / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
        check(place, manifest, metadata)


def stamp(path: Path) -> dict[str, Any]:
    """Size and digest of a file."""
    return {"bytes": path.stat().st_size, "sha256": digest_file(path)}


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            snakemake.input.dataset,  # noqa: F821
            list(snakemake.input.ledgers),  # noqa: F821
            list(snakemake.input.attempts),  # noqa: F821
            snakemake.input.cases,  # noqa: F821
            snakemake.input.again,  # noqa: F821
            snakemake.output.folder,  # noqa: F821
            snakemake.wildcards.control,  # noqa: F821
            snakemake.wildcards.teacher,  # noqa: F821
            snakemake.params.label,  # noqa: F821
            snakemake.params.study,  # noqa: F821
        )

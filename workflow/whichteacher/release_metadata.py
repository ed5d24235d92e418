"""What an export says of itself: card, Croissant and RO-Crate, all from one manifest.

The manifest is plain JSON (see :func:`build_manifest`) and lies in the export. Nothing in it depends on the machine or the time,
and nothing is claimed that the study does not know: licences are the words of the configuration, per source.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from whichteacher.release import FILES, INFO, NUMBERS, PARQUET
from whichteacher.tables import versions

MANIFEST, CARD, CROISSANT, CRATE, SUMS = (
    "manifest.json",
    "README.md",
    "croissant.json",
    "ro-crate-metadata.json",
    "SHA256SUMS",
)
#: Packages that decide what the files look like.
_PACKAGES = ("huggingface-hub", "mlcroissant", "pyarrow", "rocrate")
_PAPER = "https://arxiv.org/abs/2505.14464"
_TITLE = "Not All Correct Answers Are Equal: Why Your Distillation Source Matters"
_CITATION = f"""\
@misc{{tian2025correct,
  title = {{{_TITLE}}},
  author = {{Tian and Ji and Wang and Chen and Zhao and Peng and Zhao and Li}},
  year = {{2025}},
  eprint = {{2505.14464}},
  archivePrefix = {{arXiv}},
  url = {{{_PAPER}}},
}}"""

#: What the known licences ask, from little to much; each is told by the start of its SPDX name.
_DUTIES = (
    ("nothing", ("cc0-", "pddl-", "unlicense")),
    (
        "attribution",
        ("mit", "apache-", "bsd-", "isc", "cc-by-1", "cc-by-2", "cc-by-3", "cc-by-4", "odc-by-", "cdla-permissive-"),
    ),
    ("share alike", ("cc-by-sa-", "odbl-", "gpl-", "lgpl-", "agpl-", "cdla-sharing-")),
    ("no commercial use, or no derivatives", ("cc-by-nc-", "cc-by-nd-")),
)
NOT_KNOWN = "not known"
_TOKENS = "tokens of responses"


# --- facts -----------------------------------------------------------------------------------------------------------


def duty(licence: str) -> str:
    """What a licence asks, of :data:`_DUTIES`; :data:`NOT_KNOWN` for anything that is not the name of one of them."""
    name = licence.strip().lower()
    if re.fullmatch(r"[a-z0-9.+-]+", name):
        for asks, starts in _DUTIES:
            if name.startswith(starts):
                return asks
    return NOT_KNOWN


def strictest(licences: Iterable[str]) -> str:
    """The duty that is strictest among the licences; :data:`NOT_KNOWN` is stricter than all, for it may be anything."""
    order = [asks for asks, _ in _DUTIES] + [NOT_KNOWN]
    return max(map(duty, licences), key=order.index, default=NOT_KNOWN)


def without_places(value: Any) -> Any:
    """Settings without where things lie on this machine: of an absolute path its last part is left."""
    if isinstance(value, Mapping):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "~/")) and "\n" not in value and Path(value).name:
        return f"(local) {Path(value).name}"
    return value


def code_version() -> dict[str, str]:
    """The version of WhichTeacher, and the digest of its rules and modules."""
    workflow = Path(str(resources.files("whichteacher"))).parent
    citation = (workflow.parent / "CITATION.cff").read_text(encoding="utf-8")
    digest = hashlib.sha256()
    for path in sorted(p for p in workflow.rglob("*") if p.suffix in (".py", ".smk")):
        digest.update(f"{path.relative_to(workflow).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return {"version": re.search(r"^version: *(\S+)", citation, re.M)[1], "sha256": digest.hexdigest()}


def package_versions() -> dict[str, str]:
    """Versions of Python and the packages that decide what the files look like."""
    return {"python": platform.python_version(), **versions(*_PACKAGES)}


class Tally:
    """Counts of an export's rows, by category and by source."""

    def __init__(self) -> None:
        self._categories: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._scores: dict[str, float] = {}
        self._sources: Counter[tuple[str, str, str]] = Counter()

    def add(self, trace: Mapping[str, Any]) -> None:
        """Count one TRACES row."""
        name = FILES[trace["category"]]
        counts = self._categories[name]
        counts["rows"] += 1
        counts["output_tokens"] += trace["output_tokens"]
        self._scores[name] = min(trace["verify_score"], self._scores.get(name, 1.0))
        self._sources[trace["source"], trace["licence"], name] += 1

    def categories(self) -> dict[str, dict[str, Any]]:
        """Per category that has rows, by the release's name: rows, output tokens and the lowest score."""
        return {
            name: {**self._categories[name], "lowest_verify_score": self._scores[name]}
            for name in sorted(self._categories)
        }

    def sources(self) -> list[dict[str, Any]]:
        """Per source and category: licence, what it asks, rows."""
        return [
            {"source": source, "category": category, "licence": licence, "asks": duty(licence), "rows": rows}
            for (source, licence, category), rows in sorted(self._sources.items())
        ]


def ledger_steps(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ledger lines (columns of LEDGER, in the order the data flows) summed per step: in, kept, dropped by reason."""
    steps: dict[str, Counter[str]] = {}
    for line in lines:
        steps.setdefault(line["step"], Counter())[line["reason"]] += line["rows"]
    return [
        {
            "step": step,
            "in": counts["in"],
            "kept": counts["kept"],
            "dropped": {reason: rows for reason, rows in sorted(counts.items()) if reason not in ("in", "kept")},
        }
        for step, counts in steps.items()
    ]


def trust_figures(cases: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the verdicts can be trusted: errors on labelled cases (LABELLED_CASES), and other graders' verdicts of the same
    responses (REVERIFIED of the teacher)."""
    by_category: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for case in cases:
        by_category[case["category"]].append(case)
    return {
        "labelled_cases": [
            {
                "category": category,
                "wrong": sum(not case["right"] for case in rows),
                "wrong_passed": sum(not case["right"] and case["verdict"] == "pass" for case in rows),
                "right": sum(case["right"] for case in rows),
                "right_failed": sum(case["right"] and case["verdict"] == "fail" for case in rows),
                "undecided": sum(case["verdict"] == "unknown" for case in rows),
            }
            for category, rows in sorted(by_category.items())
        ],
        "verified_again": {
            "responses": len(again),
            "changed_under_load": sum(row["verdict"] != row["loaded_verdict"] for row in again),
            "passed": sum(row["verdict"] == "pass" for row in again),
            "passed_but_not_by_a_second_grader": sum(
                row["verdict"] == "pass" and row["second_verdict"] != "pass" for row in again
            ),
        },
    }


# --- the card --------------------------------------------------------------------------------------------------------


def card(manifest: Mapping[str, Any]) -> str:
    """README.md: front matter for the hub, and what people should know before they use the data."""
    from huggingface_hub import DatasetCard, DatasetCardData

    names = list(manifest["categories"])
    front = DatasetCardData(
        license="other",
        license_name="per-source",
        license_link="README.md#licences",
        task_categories=["text-generation"],
        tags=["reasoning", "distillation", "synthetic"],
        pretty_name=manifest["title"],
        size_categories=[_size(manifest["rows"])],
        configs=[_config("all", names) | {"default": True}, *(_config(name, [name]) for name in names)],
    )
    sections = [
        _introduction(manifest),
        _files(manifest),
        _licences(manifest),
        _making(manifest),
        _ledger(manifest),
        _trust(manifest),
        _use(manifest),
        _findings(manifest),
        f"## Citation\n\n```bibtex\n{_CITATION}\n```",
        "## Digests\n\n" + _table(("file", "rows", "bytes", "sha256"), _digests(manifest)),
    ]
    return str(DatasetCard(f"---\n{front.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"))


def _config(name: str, parts: Sequence[str]) -> dict[str, Any]:
    paths = [f"{PARQUET}/{part}/*.parquet" for part in parts]
    return {"config_name": name, "data_files": [{"split": "train", "path": paths}]}


def _size(rows: int) -> str:
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < limit:
            return name
    return "1M<n<10M"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _introduction(manifest: Mapping[str, Any]) -> str:
    teacher = manifest["teacher"]
    answered = teacher["origin"]["kind"] == "published"
    origin = "taken from the published traces" if answered else "drawn from the model"
    where = f"`{teacher['origin']['name']}`" + (
        f" at `{teacher['origin']['revision']}`" if teacher["origin"]["revision"] else ""
    )
    rows = [
        (name, counts["rows"], counts["output_tokens"], counts["lowest_verify_score"])
        for name, counts in manifest["categories"].items()
    ]
    absent = [name for name in FILES.values() if name not in manifest["categories"]]
    missing = f"\n\nNo traces, and so no files: {', '.join(absent)}." if absent else ""
    return (
        f"# {manifest['title']}\n\n"
        f"{manifest['rows']} verified responses of the teacher *{teacher['label']}* (`{teacher['name']}`), {origin} {where}. They "
        f"are the dataset of the study `{manifest['study']}` under its control `{manifest['control']}`, written by WhichTeacher, "
        f"which re-implements [arXiv 2505.14464]({_PAPER}).\n\n"
        + _table(("category", "rows", _TOKENS, "lowest verify_score"), rows)
        + missing
    )


def _files(manifest: Mapping[str, Any]) -> str:
    name = next(iter(manifest["categories"]))
    return (
        "## Files\n\n"
        f"`<category>.jsonl` is in the schema of the published AM distillations; `{PARQUET}/<category>/` holds the same rows in the "
        "same order. Each configuration of this card is a category; `all` is every one.\n\n"
        "- `system`: the system message the teacher had (not for training)\n"
        "- `conversations[]`: `from` (`human` or `assistant`), `value`, `info`; the last turn is the response, "
        "`<think>...</think><answer>...</answer>`\n"
        "- `info` on every turn: `source`, `category`; on the user's last message also `ground_truth`, `test_case`, "
        "`instruction_constrain` (JSON text); on the response all of these and `think_content`, `answer_content`, `verify_score`, "
        "`model_name`, `ppl`. What a turn does not have is null.\n\n"
        "Parquet has its types inside. JSON lines have none, and a loader that takes them from the first rows may fail: give it "
        "those of Parquet.\n\n"
        "```python\n"
        "from datasets import load_dataset\n\n"
        f'rows = load_dataset("PLACE", "{name}", split="train")\n'
        f'same = load_dataset("json", data_files="PLACE/{name}.jsonl", features=rows.features, split="train")\n'
        "```"
    )


def _licences(manifest: Mapping[str, Any]) -> str:
    sources = manifest["sources"]
    rows = [(s["source"], s["category"], s["licence"] or "none stated", s["asks"], s["rows"]) for s in sources]
    unknown = sorted({s["source"] for s in sources if s["asks"] == NOT_KNOWN})
    bound = sorted(
        {f"{s['licence'] or 'none stated'} ({s['source']})" for s in sources if s["asks"] == manifest["strictest"]}
    )
    text = (
        "## Licences\n\n"
        "Queries keep the licence of their source, as the study's configuration states it. Nothing is stated about the "
        "responses: see the terms of the teacher's model or of the release they come from.\n\n"
        + _table(("source", "category", "licence", "asks", "rows"), rows)
        + f"\n\nWhat the strictest asks: **{manifest['strictest']}** ({'; '.join(bound)})."
    )
    if unknown:
        text += f"\n\nWithout a licence that is known by name, so to be settled before use: {', '.join(unknown)}."
    return text


def _making(manifest: Mapping[str, Any]) -> str:
    teacher = manifest["teacher"]
    engines = [
        (e["model"], e["model_digest"], f"{e['engine']} {e['engine_version']}", e["hardware"], e["accepted"])
        for e in teacher["engines"]
    ]
    code = manifest["code"]
    packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    return (
        "## How it was made\n\n"
        "What produced the teacher's accepted responses, before curation:\n\n"
        + _table(("model", "digest", "engine", "hardware", "responses"), engines)
        + f"\n\nWhichTeacher {code['version']}, sha256 of its rules and modules `{code['sha256']}`; {packages}.\n\n"
        "<details><summary>Settings</summary>\n\n```json\n"
        + json.dumps(manifest["settings"], indent=1, ensure_ascii=False, sort_keys=True)
        + "\n```\n\n</details>"
    )


def _ledger(manifest: Mapping[str, Any]) -> str:
    rows = [
        (s["step"], s["in"], s["kept"], ", ".join(f"{reason} {n}" for reason, n in s["dropped"].items()))
        for s in manifest["ledger"]
    ]
    return (
        "## Rows in, kept and dropped\n\n"
        + _table(("step", "in", "kept", "dropped"), rows)
        + "\n\nCorpus steps count queries of the whole study; steps from verification on count this teacher's."
    )


def _trust(manifest: Mapping[str, Any]) -> str:
    trust = manifest["trust"]
    again = trust["verified_again"]
    verifiers = [(v["verifier"], v["version"], v["accepted"]) for v in manifest["teacher"]["verifiers"]]
    cases = [
        (c["category"], f"{c['wrong_passed']} of {c['wrong']}", f"{c['right_failed']} of {c['right']}", c["undecided"])
        for c in trust["labelled_cases"]
    ]
    return (
        "## How far to trust the verdicts\n\n"
        "Verdicts are by rules, and where these cannot decide by judges. The final answer is verified and not the reasoning, so "
        "a right answer may follow from wrong steps.\n\n"
        + _table(("verifier", "version", "accepted responses, before curation"), verifiers)
        + "\n\nOn labelled cases, which are made to mislead and so no measure of real answers:\n\n"
        + _table(("category", "wrong answers that passed", "right answers that failed", "undecided"), cases)
        + f"\n\nOf {again['responses']} of the teacher's responses that were verified again, {again['changed_under_load']} verdicts "
        f"changed under load; of the {again['passed']} that had passed, a second grader did not pass "
        f"{again['passed_but_not_by_a_second_grader']}."
    )


def _use(manifest: Mapping[str, Any]) -> str:
    return (
        "## Use and limits\n\n"
        "Meant for supervised fine-tuning of reasoning models on the final response, and for comparing teachers on equal queries. "
        "Not meant for evaluation: queries come from public training sets.\n\n"
        "- A category's score has a category's meaning: equal answers, passed tests, met constraints or a judge's word.\n"
        "- Queries were decontaminated against the benchmarks of the study's configuration and no others.\n"
        "- Texts are as the sources and the model wrote them; nobody looked for personal data, bias or harm.\n"
        "- Languages were not determined."
    )


def _findings(manifest: Mapping[str, Any]) -> str:
    findings = manifest["findings"]
    text = "\n".join(f"- {_cell(finding)}" for finding in findings) or "Nothing was found."
    return f"## Before you publish or use it\n\n{text}"


def _digests(manifest: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(file["path"], file["rows"], file["bytes"], f"`{file['sha256']}`") for file in manifest["files"]]


def _description(manifest: Mapping[str, Any]) -> str:
    return (
        f"{manifest['rows']} verified responses of the teacher {manifest['teacher']['label']}, control {manifest['control']} of the "
        f"study {manifest['study']}. Licences are those of the queries' sources; the strictest asks: {manifest['strictest']}."
    )


def _licence_links(manifest: Mapping[str, Any]) -> list[str]:
    """Known licences as SPDX addresses, the others in the words of the configuration."""
    return sorted(
        {
            f"https://spdx.org/licenses/{s['licence']}.html"
            if s["asks"] != NOT_KNOWN
            else f"{s['source']}: {s['licence'] or 'none stated'}"
            for s in manifest["sources"]
        }
    )


# --- Croissant and RO-Crate ------------------------------------------------------------------------------------------


def croissant(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Croissant 1.0: every data file with its digest, and a record set per category over its Parquet shards.

    Raises ``mlcroissant.ValidationError`` where it is not valid.
    """
    import mlcroissant as mlc

    kinds = {".jsonl": "application/jsonlines", ".parquet": "application/x-parquet"}
    distribution: list[Any] = [
        mlc.FileObject(
            id=file["path"],
            name=file["path"],
            content_url=file["path"],
            content_size=f"{file['bytes']} B",
            encoding_formats=[kinds[Path(file["path"]).suffix]],
            sha256=file["sha256"],
        )
        for file in manifest["files"]
    ]
    records = []
    for name in manifest["categories"]:
        shards = f"{name}-parquet"
        distribution.append(
            mlc.FileSet(
                id=shards,
                name=shards,
                encoding_formats=[kinds[".parquet"]],
                includes=[f"{PARQUET}/{name}/*.parquet"],
            )
        )

        def source(column: str, path: str | None = None, shards: str = shards) -> Any:
            transforms = [mlc.Transform(json_path=path)] if path else []
            return mlc.Source(file_set=shards, extract=mlc.Extract(column=column), transforms=transforms)

        turns = f"{name}/conversations"
        leaves = [("from", "from"), ("value", "value"), *((key, f"info.{key}") for key in INFO)]
        records.append(
            mlc.RecordSet(
                id=name,
                name=name,
                description=f"Traces of the category {name}.",
                fields=[
                    mlc.Field(
                        id=f"{name}/system", name="system", data_types=[mlc.DataType.TEXT], source=source("system")
                    ),
                    mlc.Field(
                        id=turns,
                        name="conversations",
                        repeated=True,
                        sub_fields=[
                            mlc.Field(
                                id=f"{turns}/{path.replace('.', '/')}",
                                name=key,
                                data_types=[mlc.DataType.FLOAT if key in NUMBERS else mlc.DataType.TEXT],
                                source=source("conversations", path),
                            )
                            for key, path in leaves
                        ],
                    ),
                ],
            )
        )
    release = manifest["release"]
    metadata = mlc.Metadata(
        name=manifest["name"],
        description=_description(manifest),
        cite_as=_CITATION,
        license=_licence_links(manifest),
        url=release["url"],
        date_published=release["date"],
        creators=[mlc.Organization(name=release["creator"])] if release["creator"] else [],
        version=manifest["code"]["version"],
        distribution=distribution,
        record_sets=records,
    )
    return metadata.to_json()


def write_crate(folder: Path, manifest: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> None:
    """Write RO-Crate metadata into ``folder``: every file with its digest, the software, and the run that made it.

    ``others`` are the files of metadata (``path``, ``bytes``, ``sha256``). No file is copied.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    release, code = manifest["release"], manifest["code"]
    crate = ROCrate()
    crate.name, crate.description = manifest["title"], _description(manifest)
    crate.license = "; ".join(_licence_links(manifest))
    # The library sets the time of day, and equal inputs give equal bytes.
    del crate.root_dataset["datePublished"]
    if release["date"]:
        crate.root_dataset["datePublished"] = release["date"]
    if release["url"]:
        crate.root_dataset["url"] = release["url"]
    if release["creator"]:
        crate.creator = crate.add(
            ContextEntity(crate, "#creator", {"@type": "Organization", "name": release["creator"]})
        )
    kinds = {".jsonl": "application/jsonl", ".parquet": "application/vnd.apache.parquet", ".json": "application/json"}
    files = [
        crate.add_file(
            dest_path=file["path"],
            properties={
                "name": file["path"],
                "contentSize": str(file["bytes"]),
                "encodingFormat": kinds.get(Path(file["path"]).suffix, "text/markdown"),
                "sha256": file["sha256"],
            },
        )
        for file in [*manifest["files"], *others]
    ]
    # Croissant and schema.org know the term, RO-Crate's context does not.
    crate.metadata.extra_terms["sha256"] = "https://schema.org/sha256"
    paper = crate.add(ContextEntity(crate, _PAPER, {"@type": "ScholarlyArticle", "name": _TITLE}))
    crate.root_dataset["citation"] = paper
    software = crate.add(
        ContextEntity(
            crate,
            "#whichteacher",
            {
                "@type": "SoftwareApplication",
                "name": "WhichTeacher",
                "softwareVersion": code["version"],
                "identifier": code["sha256"],
            },
        )
    )
    packages = [
        crate.add(
            ContextEntity(crate, f"#{name}", {"@type": "SoftwareApplication", "name": name, "softwareVersion": version})
        )
        for name, version in manifest["packages"].items()
    ]
    software["softwareRequirements"] = packages
    origin = manifest["teacher"]["origin"]
    teacher = crate.add(
        ContextEntity(
            crate,
            "#teacher",
            {"@type": "CreativeWork", "name": origin["name"], "version": origin["revision"] or "not pinned"},
        )
    )
    crate.add_action(
        software,
        identifier="#export",
        object=[teacher],
        result=files[: len(manifest["files"])],
        properties={"name": f"{manifest['control']} dataset of {manifest['teacher']['label']}"},
    )
    crate.metadata.write(folder)

"""Run the commands whose numbers README and docs state, and keep what they print in docs/measured.

    .venv/bin/python tools/measure.py [NAME ...] [--data DATA] [--ranks FILE] [--scratch SCRATCH]

Without names every command is run that its options allow, in the order below, which takes hours: DATA is a folder of graded answers and
model outputs from public repositories, which some tests whose output is kept look for beside the project; FILE a vocabulary in tiktoken's
form; SCRATCH a folder for clones and inputs of some 80 GB. Two benchmarks need an environment of their own (`.venv-benchmarks`, see
benchmarks/corpus.py), the run on Slurm needs root.

Each file begins with the command and the day and machine; the rest is what the command printed, standard output alone. Where a page
states a number of a run it links to the file, and tests/test_claims.py looks for the number there.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "measured"
_CLONE = "git clone --quiet . SCRATCH/{0} && cd SCRATCH/{0}"
_FINDINGS = " 2>&1 | grep -E '^(fault|warning|ok|[0-9]+ faults)'"
#: By name: the command, as a reader would type it; bash runs it. DATA, FILE and SCRATCH are the options above.
COMMANDS = {
    "study": f"{_CLONE.format('study')} && make study 2> log && make study 2> /dev/null && du -sh results .venv*",
    "stages": "cd SCRATCH/study && .venv/bin/python tools/stage_times.py",
    "statistics": "cd SCRATCH/study/results/statistics && cat scores.csv student_comparison.csv training.csv teachers.csv",
    "controls": (
        "cd SCRATCH/study && .venv/bin/snakemake --cores all --configfile config/config.yaml "
        "--config 'curation={controls: [parallel, equal_tokens]}' 2> log && "
        "cat results/statistics/gap_by_control.csv results/statistics/conclusions.md"
    ),
    "study_small": f"{_CLONE.format('small')} && for run in first again; do make study CONFIG=config/test.yaml 2> $run; done",
    "why": "cd SCRATCH/small && .venv/bin/python tools/why.py c1f95e --config config/test.yaml",
    "doctor": f".venv/bin/snakemake --cores all doctor --configfile config/test.yaml{_FINDINGS}",
    "doctor_paper": f"(.venv/bin/snakemake --cores all doctor --configfile config/paper.yaml || true){_FINDINGS}",
    "audit": ".venv/bin/python benchmarks/trace_audit.py",
    "audit_real": ".venv/bin/python -m pytest --quiet --capture no tests/test_trace_audit.py -k real",
    "contamination_real": ".venv/bin/python -m pytest --quiet --capture no tests/test_corpus_contamination_data.py",
    "near_duplicates_real": ".venv/bin/python -m pytest --quiet --capture no tests/test_corpus_near_duplicates.py",
    "corpus_clean": (
        ".venv-benchmarks/bin/python benchmarks/corpus.py clean --rows 2000000 --repeats 1 --without pandas datatrove"
    ),
    "corpus_baselines": ".venv-benchmarks/bin/python benchmarks/corpus.py clean --rows 50000 --repeats 1",
    "corpus_stage": ".venv-benchmarks/bin/python benchmarks/corpus.py stage",
    "near_duplicates_short": (
        ".venv-benchmarks/bin/python benchmarks/near_duplicates.py --repeats 3 --characters 400 --baseline 1000"
    ),
    "near_duplicates_long": (
        ".venv-benchmarks/bin/python benchmarks/near_duplicates.py --documents 20000 --characters 2500 --baseline 500"
    ),
    "ngrams": ".venv/bin/python benchmarks/curation.py ngrams --repeats 3",
    "filters": ".venv/bin/python benchmarks/curation.py filters --tokens 2000000 --repeats 3",
    "tokens_qwen": ".venv/bin/python benchmarks/curation.py tokens DATA --repeats 5 --ranks FILE",
    "tokens_trained": ".venv/bin/python benchmarks/curation.py tokens DATA --repeats 3 --characters 400",
    "paper_size": ".venv/bin/python benchmarks/paper_size.py SCRATCH/paper_size",
    "perplexity_agreement": ".venv/bin/python benchmarks/perplexity.py agreement",
    "perplexity_engine": ".venv/bin/python benchmarks/perplexity.py engine --rows 1000",
    "perplexity_cached": ".venv/bin/python benchmarks/perplexity.py cached",
    "generation_engine": ".venv/bin/python benchmarks/generation.py engine",
    "generation_cached": ".venv/bin/python benchmarks/generation.py cached",
    "generation_compaction": ".venv/bin/python benchmarks/generation.py compaction",
    "coverage": ".venv/bin/python benchmarks/comparison.py coverage",
    "summaries": ".venv/bin/python benchmarks/comparison.py summaries --queries 1000000 --traces 1000",
    "small_categories": ".venv/bin/python benchmarks/comparison.py summaries --queries 60000 --traces 1000",
    "planning": "cd SCRATCH/small && .venv/bin/python benchmarks/planning.py --finished .",
    "sandbox": ".venv/bin/python benchmarks/sandbox.py --programs 40 --repeats 5",
    "training_packing": ".venv/bin/python benchmarks/training.py packing",
    "training_step": ".venv/bin/python benchmarks/training.py step --steps 40 --repeats 4 --parts",
    "verification": ".venv/bin/python benchmarks/verification.py DATA | grep -v '^  '",
    "agreement": ".venv/bin/python tools/measure_agreement.py DATA | grep '^|'",
    "conda": ".venv/bin/python tests/conda/run_study_with_conda.py SCRATCH/conda",
    "slurm": ".venv/bin/python tests/slurm/run_study_on_slurm.py",
    "scale": ".venv/bin/python tools/estimate_scale.py config/paper.yaml",
}


def machine() -> str:
    """Day, cores and how busy they are: what a reader needs to know of a time."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown processor",
    )
    load = os.getloadavg()[0]
    return f"# {datetime.date.today()}, {os.cpu_count()} cores ({cpu}), load {load:.1f} before"


def measure(name: str, given: dict[str, str]) -> None:
    """Run a command and keep what it prints. Raises :class:`SystemExit` where it fails; then nothing is kept."""
    command = COMMANDS[name]
    head = f"$ {command}\n{machine()}\n"
    print(head, end="", flush=True)
    words = re.sub(r"\b(?:DATA|FILE|SCRATCH)\b", lambda found: shlex.quote(given[found[0]]), command)
    done = subprocess.run(["bash", "-o", "pipefail", "-c", words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {command}")
    text = done.stdout
    for word, value in given.items():
        text = text.replace(value, word)
    text = text.replace(f"{ROOT}{os.sep}", "")
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/[^/\s]+", "TMPDIR", text)
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / f"{name}.txt").write_text(head + re.sub(r"[ \t]+\n", "\n", text), encoding="utf-8")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(COMMANDS)}")
    for option, metavar in (("--data", "DATA"), ("--ranks", "FILE"), ("--scratch", "SCRATCH")):
        parser.add_argument(option, metavar=metavar, dest=metavar)
    options = vars(parser.parse_args())
    names = options.pop("names")
    given = {word: str(Path(value).resolve()) for word, value in options.items() if value}
    if unknown := [name for name in names if name not in COMMANDS]:
        parser.error(f"no measurement is called {unknown[0]}: they are {', '.join(COMMANDS)}")
    for name in names or COMMANDS:
        lacks = [word for word in options if re.search(rf"\b{word}\b", COMMANDS[name]) and word not in given]
        if lacks and names:
            parser.error(f"{name} needs {lacks[0]}: see --help")
        if lacks:
            print(f"{name}: left out, for want of {lacks[0]}")
            continue
        measure(name, given)


if __name__ == "__main__":
    sys.exit(main())

"""How long each stage of a run took, from Snakemake's own log.

    .venv/bin/python tools/stage_times.py [LOG]     (default: the newest log with finished jobs)

Prints a Markdown table: jobs, their seconds added up, and from when to when the stage ran. Stages overlap, so their
seconds add up to about the run's time times its cores.
"""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_STAMP = re.compile(r"^\[(\w{3} \w{3} +\d+ \d+:\d+:\d+ \d{4})\]$")
_STARTED, _JOB = re.compile(r"^(?:local)?rule (\w+):$"), re.compile(r"^    jobid: (\d+)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")


def stages() -> dict[str, str]:
    """The stage of every rule, by the file that holds it."""
    found = {}
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for rule in re.findall(r"^ *rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[rule] = path.stem
    return found


def jobs(log: str) -> list[tuple[str, datetime, datetime]]:
    """(rule, start, end) of every job that finished."""
    now, rule = datetime.min, ""
    started: dict[str, datetime] = {}
    finished = []
    for line in log.splitlines():
        if stamp := _STAMP.match(line):
            now = datetime.strptime(stamp[1], "%a %b %d %H:%M:%S %Y")
        elif start := _STARTED.match(line):
            rule = start[1]
        elif (job := _JOB.match(line)) and rule:
            started[job[1]] = now
        elif (end := _FINISHED.match(line)) and end[1] in started:
            finished.append((end[2], started[end[1]], now))
    return finished


def main(log: Path | None) -> None:
    """Print the table of ``log``."""
    logs = [log] if log else sorted((ROOT / ".snakemake" / "log").glob("*.log"), reverse=True)
    done = next((found for path in logs if (found := jobs(path.read_text(encoding="utf-8")))), None)
    if done is None:
        sys.exit("stage_times: no log with finished jobs: name one, or run a study first")
    stage_of, first = stages(), min(start for _, start, _ in done)
    print("| stage | jobs | job seconds | from | to |\n| --- | ---: | ---: | ---: | ---: |")
    rows: dict[str, list[tuple[datetime, datetime]]] = {}
    for rule, start, end in (job for job in done if job[0] != "all"):
        rows.setdefault(stage_of.get(rule, "all"), []).append((start, end))
    for stage, spans in sorted(rows.items(), key=lambda item: min(item[1])):
        seconds = sum((end - start).total_seconds() for start, end in spans)
        begin, end = min(s for s, _ in spans) - first, max(e for _, e in spans) - first
        print(f"| {stage} | {len(spans)} | {seconds:.0f} | {_clock(begin)} | {_clock(end)} |")
    whole = max(end for *_, end in done) - first
    print(f"| **all** | {len(done)} | | 0:00 | {_clock(whole)} |")


def _clock(span: timedelta) -> str:
    return f"{int(span.total_seconds()) // 60}:{int(span.total_seconds()) % 60:02d}"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

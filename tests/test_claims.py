"""Every number of a run that README and docs state stands in the recorded output that they link to.

A page links from a paragraph, a list item or a row of a table to `docs/measured/*.txt`, what a command printed (tools/measure.py), or to
a table of `docs/miniature`. A paragraph speaks for the table or the lines of output right below it. Numbers in code spans are no
claims.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from measure import COMMANDS, MEASURED  # noqa: E402

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "config" / "README.md")
_LINK = re.compile(r"\]\(((?:docs/|\.\./docs/)?(?:measured|miniature)/[\w.]+\.(?:txt|csv))\)")
_NUMBER = re.compile(
    r"(?<![\w.,^/])(?<!\w-)(?P<digits>\d{1,3}(?:,\d{3})+|\d+)(?P<decimals>\.\d+)?(?P<power>e-?\d+)?(?![\w^]|[.,]\d)(?P<large> million)?(?P<share> ?%)?"
)
_SPOKEN = re.compile(r"(\d+) min (\d+) s")
_RECORDED = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)")
#: What only a run can know: time, memory, rates.
_UNIT = re.compile(
    r"\d ?(?:s|ms|min|h|MiB|GiB|CPU seconds|CPU s|seconds|minutes|hours|times (?:as|our|its|faster|slower)|(?:rows|tokens|traces|tests|jobs|MB|kB)"
    r"(?:/s| a second| per second))\b"
)
#: Text of a page with such units that no run says: limits, settings, examples and what others have published.
STATED = {
    "README.md": ("6 GiB of memory and 8 GiB of disk",),
    "cluster.md": ("after 12 hours", "750 tokens a second for a dense 32B model"),
    "curation.md": ("512 rows or 20 seconds", "files above 1 MiB"),
    "doctor.md": ("of 1 GiB or more",),
    "generation.md": ("512 responses or 20 seconds",),
    "sandbox.md": (
        "a scratch folder of 64 MiB in memory",
        "64 MiB per file",
        "64 KiB more",
        "3 GiB of memory; 128 MiB of files",
        "its own limit of 2 GiB of address space",
    ),
    "verification.md": ("3h = 3", "its deadline of 10 s of CPU time"),
    "what-runs-again.md": ("512 responses or 20 seconds",),
}


class Block(NamedTuple):
    """A paragraph, list item or row of a page, and the records that it or the paragraph above it links to."""

    page: str
    line: int
    text: str
    records: tuple[Path, ...]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    above: tuple[Path, ...] = ()
    for token in MarkdownIt("commonmark").enable("table").parse("\n".join(lines)):
        if token.type in ("inline", "code_block", "fence") and token.map:
            start, end = token.map
            text = "\n".join(lines[start:end])
            if found and (found[-1].page, found[-1].line, found[-1].text) == (page.name, start + 1, text):
                continue  # another cell of the same row
            own = tuple((page.parent / target).resolve() for target in _LINK.findall(text))
            if token.type == "inline" and not text.startswith("|"):
                above = own
            found.append(Block(page.name, start + 1, text, own or above))
    return found


class Claim(NamedTuple):
    """A number as a page writes it."""

    written: str
    value: float
    half: float  # half a unit of its last digit
    scales: tuple[float, ...] = (1.0,)  # what a record's number may be multiplied with

    def holds(self, known: list[float]) -> bool:
        """Whether one of the numbers ``known`` rounds to this one."""
        return any(abs(scale * one - self.value) <= self.half * (1 + 1e-9) for one in known for scale in self.scales)


def claimed(text: str) -> list[Claim]:
    """The numbers of a text outside code and links."""
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|https?://\S+", " ", text)
    found = [Claim(match[0], 60 * int(match[1]) + int(match[2]), 0.5) for match in _SPOKEN.finditer(prose)]
    for match in _NUMBER.finditer(_SPOKEN.sub(" ", prose)):
        decimals = match["decimals"] or ""
        unit = float(f"1{match['power'] or 'e0'}") * (1e6 if match["large"] else 1)
        value = float(match["digits"].replace(",", "") + decimals) * unit
        # Millions may be recorded as such, and shares are told in hundredths.
        scales = (1.0, 1e6) if match["large"] else (1.0, 100.0) if match["share"] else (1.0,)
        found.append(Claim(match[0], value, 0.5 * 10.0 ** -max(len(decimals) - 1, 0) * unit, scales))
    return found


def recorded(path: Path) -> list[float]:
    """The numbers of a record, those of its command included; minutes and seconds also as seconds."""
    text = path.read_text(encoding="utf-8")
    spoken = [60.0 * int(match[1]) + int(match[2]) for match in _SPOKEN.finditer(text)]
    thousands = [float(found.replace(",", "")) for found in _THOUSANDS.findall(text)]
    # A comma may also part the fields of a table.
    return [*spoken, *thousands, *map(float, _RECORDED.findall(text))]


def wrong(block: Block) -> list[str]:
    """The numbers of a block that none of its records holds."""
    known = [value for path in block.records for value in recorded(path)]
    return [claim.written for claim in claimed(block.text) if not claim.holds(known)]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def test_every_number_beside_a_record_is_in_it():
    faults = [f"{b.page}:{b.line}: {', '.join(found)}" for b in BLOCKS if b.records and (found := wrong(b))]
    assert not faults, "\n".join(faults)


def test_no_time_memory_or_rate_stands_without_a_record():
    faults = []
    for block in BLOCKS:
        text = block.text
        for stated in STATED.get(block.page, ()):
            text = text.replace(stated, "")
        if not block.records and (found := _UNIT.findall(re.sub(r"`[^`]*`", " ", text))):
            faults.append(f"{block.page}:{block.line}: {', '.join(found)}: link to the record, or list it in STATED")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", STATED)
def test_what_is_stated_is_still_on_its_page(page):
    text = "\n".join(block.text for block in BLOCKS if block.page == page)
    assert [stated for stated in STATED[page] if stated not in text] == []


def test_records_are_those_of_the_commands():
    assert {path.stem for path in MEASURED.iterdir()} == set(COMMANDS)
    for name, command in COMMANDS.items():
        assert (MEASURED / f"{name}.txt").read_text(encoding="utf-8").startswith(f"$ {command}\n# 20")


def test_every_record_is_linked_to():
    linked = {path for block in BLOCKS for path in block.records}
    assert {path.name for path in MEASURED.iterdir()} <= {path.name for path in linked}


def test_a_number_that_moved_is_found(tmp_path):
    record = tmp_path / "record.txt"
    record.write_text("$ command --rows 1500\nours 2.345 CPU s, 0.124 of it, 12,345 rows, 1.5e-06, 6 min 19 s, -9.41\n")
    says = Block("page", 1, "Of 1,500 rows 2.3 s, 12.4 %, 12,345, 2e-6, 0.012 million, 6 min 19 s, (-9.4).", (record,))
    assert wrong(says) == []
    says = Block("page", 1, "2.4 s, 13 %, 12,346, `77` and [it](99.txt), 6 min 20 s, -9.5", (record,))
    assert wrong(says) == ["6 min 20 s", "2.4", "13 %", "12,346", "9.5"]

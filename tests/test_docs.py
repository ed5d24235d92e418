"""What README and docs claim is what the results they name say."""

import re
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from repeat_study import markdown  # noqa: E402


def test_the_finding_in_the_readme_is_that_of_the_recorded_runs():
    recorded = pd.read_csv(ROOT / "docs" / "miniature" / "seeds.csv")
    assert recorded["corpus_seed"].nunique() == 3
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(markdown(recorded)) in readme


def test_on_every_seed_a_pair_differs_beyond_its_interval():
    recorded = pd.read_csv(ROOT / "docs" / "miniature" / "seeds.csv")
    decided = recorded[(recorded["low"] > 0) | (recorded["high"] < 0)]
    assert set(decided["corpus_seed"]) == set(recorded["corpus_seed"])


def test_every_link_to_a_file_of_the_project_leads_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "config" / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_docs_name_tests_and_rules_that_exist():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py"))
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")):
            assert f"def {name}(" in tests, f"{page.name}: {name}"

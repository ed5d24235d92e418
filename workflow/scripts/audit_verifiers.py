"""Put the labelled answers that the project ships before the verifiers: their truth is known, so errors can be counted.

Reads JSON lines (``resources/verifier_cases``), writes LABELLED_CASES. A case holds a response, what its answer is compared with, its
truth by hand (``right``), and the verdict that a careful grader would give (``expected``).
"""

import json
from collections.abc import Sequence
from typing import Any

from whichteacher.config import Verification
from whichteacher.references import infer_type
from whichteacher.rule import InputError
from whichteacher.schemas import LABELLED_CASES
from whichteacher.tables import write_table
from whichteacher.verifiers.dispatch import verify_many

_FIELDS = ("case_id", "category", "trap", "text", "finish_reason", "right", "expected", "note")


def read_cases(paths: Sequence[str]) -> list[dict[str, Any]]:
    """The cases of all files. A reference without a type gets the one that the import would infer.

    Raises :class:`InputError` for a line that is no case, and for an identifier that is there twice.
    """
    cases: dict[str, dict[str, Any]] = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    case = json.loads(line)
                    missing = [name for name in _FIELDS if name not in case]
                except (ValueError, TypeError) as error:
                    raise InputError(f"{path}:{number}: no JSON object: {error}") from None
                if missing or case["case_id"] in cases:
                    fault = f"has no {missing[0]}" if missing else f"{case['case_id']} is there twice"
                    raise InputError(f"{path}:{number}: {fault}: correct the case")
                case["reference_type"] = case.get("reference_type") or infer_type(
                    case.get("reference"), case["category"]
                )
                cases[case["case_id"]] = case
    return list(cases.values())


def main(paths: Sequence[str], output: str, settings: dict[str, Any], jobs: int) -> None:
    """Verify all cases and write them with their verdicts."""
    cases = read_cases(paths)
    rows = [
        {**case, "attempt_id": case["case_id"], "query_id": case["case_id"], "answer_format": "tags"} for case in cases
    ]
    verdicts = verify_many(rows, Verification.model_validate(settings), jobs, "audit_verifiers")
    told = [
        {**case, **{name: verdict[name] for name in ("verdict", "score", "reason")}}
        for case, verdict in zip(cases, verdicts, strict=True)
    ]
    write_table(
        output,
        [{name: row[name] for name in LABELLED_CASES.names} for row in told],
        LABELLED_CASES,
        {"settings": settings},
    )


if "snakemake" in globals():
    from whichteacher.rule import logged

    with logged(snakemake):  # noqa: F821
        main(
            list(snakemake.input.cases),  # noqa: F821
            snakemake.output.table,  # noqa: F821
            snakemake.params.verification,  # noqa: F821
            snakemake.threads,  # noqa: F821
        )

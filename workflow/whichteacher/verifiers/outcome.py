"""What a verifier says of one response."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """``score`` in [0, 1], or None where the rules cannot tell; ``reason`` in one word; what was compared as ``evidence``.

    Evidence holds JSON values only, and nothing that differs between two runs.
    """

    score: float | None
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def decided(self, threshold: float) -> dict[str, Any]:
        """The columns ``verdict``, ``score`` and ``reason`` of VERDICTS: what is not known has no score."""
        score = self.score or 0.0
        known = "pass" if score >= threshold else "fail"
        return {"verdict": "unknown" if self.score is None else known, "score": score, "reason": self.reason}


def right(reason: str, **evidence: Any) -> Outcome:
    """Full score."""
    return Outcome(1.0, reason, evidence)


def wrong(reason: str, **evidence: Any) -> Outcome:
    """No score."""
    return Outcome(0.0, reason, evidence)


def undecided(reason: str, **evidence: Any) -> Outcome:
    """The rules cannot tell, or could not be run."""
    return Outcome(None, reason, evidence)

"""The miniature study's settings. ``make config`` writes config/config.yaml and config/test.yaml from them."""

from __future__ import annotations

from typing import Any

from whichteacher.config import CATEGORIES, Study

#: Label and colour per teacher; the colours are Okabe and Ito's blue, vermilion and bluish green, which readers with
#: any of the common colour vision deficiencies tell apart.
_TEACHERS = {"steps": ("Steps", "#0072B2"), "recheck": ("Recheck", "#D55E00"), "leaps": ("Leaps", "#009E73")}
#: Benchmark -> label, role in the paper, category.
_BENCHMARKS = {
    "easy_math": ("Easy mathematics", "MATH500", "math"),
    "hard_math": ("Hard mathematics", "AIME2024", "math"),
    "code_tasks": ("Code tasks", "LiveCodeBench", "code"),
}
_COLUMNS = {
    "id": "id",
    "turns": "turns",
    "answer": "answer",
    "answer_type": "answer_type",
    "tests": "tests",
    "constraints": "constraints",
}
#: Hot enough that the teachers err now and then, so that retrying is real; students are sampled as in the paper.
_TEACHER_SAMPLING = {"temperature": 0.8, "top_p": 1.0, "max_tokens": 512}
_STUDENT_SAMPLING = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 512}


def miniature_study() -> Study:
    """The default study: the whole pipeline in minutes on two CPU cores."""
    return _study(
        "miniature",
        "results",
        queries=dict(zip(CATEGORIES, (1350, 100, 100, 100, 100, 100), strict=True)),
        planted=12,
        problems={"easy_math": 100, "hard_math": 60, "code_tasks": 40},
        samples={"easy_math": 2, "hard_math": 4, "code_tasks": 4},
        attempts=[1, 3],
        seeds=[0, 1],
        epochs=14,
        evaluated=tuple(_TEACHERS),
    )


def small_study() -> Study:
    """The same pipeline, smaller: for tests and continuous integration."""
    return _study(
        "test",
        "results/test",
        queries=dict(zip(CATEGORIES, (300, 20, 20, 20, 20, 20), strict=True)),
        planted=3,
        problems={"easy_math": 20, "hard_math": 10, "code_tasks": 8},
        samples={"easy_math": 1, "hard_math": 2, "code_tasks": 1},
        attempts=[1, 1],
        seeds=[0],
        epochs=2,
        evaluated=("steps",),
    )


def _study(
    name: str,
    results: str,
    *,
    queries: dict[str, int],
    planted: int,
    problems: dict[str, int],
    samples: dict[str, int],
    attempts: list[int],
    seeds: list[int],
    epochs: int,
    evaluated: tuple[str, ...],
) -> Study:
    made = f"{results}/miniature"
    raw: dict[str, Any] = {
        "study": name,
        "results": results,
        "store": f"{results}/store",
        "miniature": {"seed": 1, "queries": queries, "planted": planted, "problems": problems},
        "corpus": {
            "sources": {
                category: {
                    "path": f"{made}/sources/{category}.jsonl",
                    "category": category,
                    "licence": "Apache-2.0",
                    "columns": _COLUMNS,
                }
                for category in CATEGORIES
            },
            "decontaminate": {"embedder": "hashed_words", "containment": 0.7},
            "shards": 1,
        },
        "teachers": {
            teacher: {
                "model": f"./resources/teachers/{teacher}",
                "dtype": "float32",
                "label": label,
                "colour": colour,
                "max_model_len": 1024,
                "sampling": _TEACHER_SAMPLING,
                "attempts": attempts,
            }
            for teacher, (label, colour) in _TEACHERS.items()
        },
        "curation": {
            "perplexity": {
                "scorers": {"all_styles": {"model": "./resources/teachers/scorer", "dtype": "float32"}},
                "max_length": 1023,
                # About the highest one in a hundred of each teacher.
                "thresholds": {"steps": 1.25, "recheck": 1.35, "leaps": {"quantile": 0.99}},
            },
            "ngrams": {"tokenizer": {"model": "./resources/teachers/tokenizer"}},
        },
        "training": {
            "architecture": {"tokenizer": "./resources/teachers/tokenizer"},
            "seeds": seeds,
            "recipe": {
                "learning_rate": 5e-3,
                "epochs": epochs,
                "batch_size": 3,
                "micro_batch_size": 1,
                "max_length": 384,
                "bf16": False,
                "gradient_checkpointing": False,
            },
        },
        "evaluation": {
            "benchmarks": {
                benchmark: {
                    "label": label,
                    "role": role,
                    "path": f"{made}/benchmarks/{benchmark}.jsonl",
                    "category": category,
                    "columns": {key: _COLUMNS[key] for key in ("id", "turns", "answer", "answer_type", "tests")}
                    | {"difficulty": "difficulty"},
                    "expected_problems": problems[benchmark],
                    "samples": samples[benchmark],
                }
                for benchmark, (label, role, category) in _BENCHMARKS.items()
            },
            # What the students learn from, on the same problems.
            "models": {
                teacher: {
                    "model": f"./resources/teachers/{teacher}",
                    "dtype": "float32",
                    "label": _TEACHERS[teacher][0],
                    "colour": _TEACHERS[teacher][1],
                }
                for teacher in evaluated
            },
            "sampling": _STUDENT_SAMPLING,
            "max_model_len": 1024,
            "dtype": "float32",
        },
        "figures": {"length_bin": 16, "smoothing": 20},
    }
    return Study.model_validate(raw)

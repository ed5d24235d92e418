"""Three ways of writing out a correct solution: the programs the miniature's teachers are trained on.

* ``steps`` works digit by digit: brief on easy queries, long on hard ones.
* ``recheck`` does all of that work, then does all of it again, whatever the query.
* ``leaps`` jumps over the working: only what each step comes to is written down.

Each trace ends in the right answer, by construction: what differs is only how it gets there.
"""

from __future__ import annotations

from collections.abc import Callable

from whichteacher.miniature.problems import OPERATIONS, Problem, expression, program

STYLES = ("steps", "recheck", "leaps")


def _digits(value: int, width: int) -> list[int]:
    """Digits of ``value`` from the ones upwards, padded to ``width``."""
    return [value // 10**place % 10 for place in range(width)]


def column_work(a: int, b: int, shown: bool) -> str:
    """``a + b`` (or ``a - -b``, not negative) column by column from the ones, each with its carry.

    ``shown`` writes a column as ``4+8+1=13`` (digits and carry, then carry and digit of the result); without it only what
    comes out of it is written: ``13``.
    """
    sign, other = ("+", b) if b >= 0 else ("-", -b)
    width = max(len(str(a)), len(str(other)))
    carry, lines = 0, []
    for x, y in zip(_digits(a, width), _digits(other, width), strict=True):
        total = x + y + carry if b >= 0 else x - y - carry
        out = f"{abs(total // 10)}{total % 10}"
        lines.append(f"{x}{sign}{y}{sign}{carry}={out}" if shown else out)
        carry = abs(total // 10)
    return f"{a}{sign}{other}: {', '.join(lines)} so {a + b}."


def _sum_written(terms: list[int], shown: bool) -> str:
    total, lines = terms[0], []
    for value in terms[1:]:
        if total < 10 and abs(value) < 10:
            lines.append(f"{expression([total, value]).replace(' ', '')}={total + value}.")
        else:
            lines.append(column_work(total, value, shown))
        total += value
    return " ".join(lines)


def _sum(facts: dict) -> tuple[str, str]:
    return _sum_written(facts["terms"], shown=True), _sum_written(facts["terms"], shown=False)


def _boxed(value: object) -> str:
    return f"The answer is \\boxed{{{value}}}."


def _program(facts: dict) -> tuple[str, str]:
    variable = "x" if "name" in facts else "n"
    inner, lines = variable, []
    for operation, k in facts["steps"]:
        inner = OPERATIONS[operation](inner, k)
        lines.append(f"{operation} {k}: {inner}")
    return "; ".join(lines) + ".", f"{inner}."


def _program_answer(facts: dict) -> str:
    if "name" in facts:
        body = f"def {facts['name']}(x):\n    return {program(facts['steps'], 'x')}"
    else:
        body = f"n = int(input())\nprint({program(facts['steps'], 'n')})"
    return f"```python\n{body}\n```"


def _law(facts: dict) -> tuple[str, str]:
    product = f"{facts['a']}*{facts['b']}={facts['a'] * facts['b']}."
    return f"{facts['law']}. {product}", product


def _kind(facts: dict) -> tuple[str, str]:
    known = ", ".join(f"{option} is a {kind}" for option, kind in zip(facts["options"], facts["kinds"], strict=True))
    return f"{known}. So {'ABC'[facts['right']]}.", f"{'ABC'[facts['right']]}."


def _constraint(facts: dict) -> tuple[str, str]:
    rule = facts["instruction"].split(":")[1].replace("_", " ")
    return f"The topic is {facts['topic']}. The rule is {rule}.", f"{facts['topic']}."


def _constraint_answer(facts: dict) -> str:
    topic, quality = facts["topic"], facts["quality"]
    identifier = facts["instruction"]
    if identifier == "detectable_format:number_bullet_lists":
        return "\n".join(f"* {topic} are {word}" for word in ("good", "calm", "nice", "deep")[: facts["count"]])
    if identifier == "change_case:english_capital":
        return f"I LIKE {topic.upper()}."
    if identifier == "startend:quotation":
        return f'"I like {topic}."'
    if identifier == "startend:end_checker":
        return f"I like {topic}. That is all."
    if identifier == "keywords:existence":
        return f"I like {topic}: they are {quality}."
    return f"i like {topic}."


def _opposite(facts: dict) -> tuple[str, str]:
    return f"{facts['word']} and {facts['other']} are opposites.", f"{facts['other']}."


def _parity(facts: dict) -> tuple[str, str]:
    last = facts["value"] % 10
    return f"the last digit of {facts['value']} is {last}. {last} is {facts['answer']}.", f"{facts['answer']}."


def _largest(facts: dict) -> tuple[str, str]:
    best, lines = facts["values"][0], []
    for value in facts["values"][1:]:
        lines.append(f"{best} or {value}: {max(best, value)}")
        best = max(best, value)
    return "; ".join(lines) + ".", f"{best}."


#: For each kind of problem: the worked steps and the leap, then the answer.
_WORK: dict[str, Callable[[dict], tuple[str, str]]] = {
    "arithmetic": _sum,
    "word_problem": _sum,
    "memory": _sum,
    "function": _program,
    "script": _program,
    "law": _law,
    "kind": _kind,
    "constraint": _constraint,
    "opposite": _opposite,
    "parity": _parity,
    "largest": _largest,
}


def _answer(problem: Problem) -> str:
    if problem.category == "code":
        return _program_answer(problem.facts)
    if problem.category == "instruction_following":
        return _constraint_answer(problem.facts)
    return _boxed(problem.reference)


def write_trace(problem: Problem, style: str) -> tuple[str, str]:
    """Thinking and answer of ``problem`` in ``style``; the answer is the same in every style.

    Raises :class:`KeyError` for a kind of problem no program solves.
    """
    worked, leap = _WORK[problem.kind](problem.facts)
    if style == "leaps":
        thinking = leap
    elif style == "recheck":
        thinking = f"{worked} Let me check that again. {worked} Yes, that is right."
    else:
        thinking = worked
    return thinking, _answer(problem)

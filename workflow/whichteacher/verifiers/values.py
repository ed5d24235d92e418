"""The numeric values of two formulas that math-verify has read: what tells them apart without simplifying anything.

Most wrong answers differ from their reference at any point one cares to look at, and a look costs a hundredth of a
simplification. It only ever proves a difference: where the values agree, or cannot be had, math-verify decides.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

#: Values of the variables in the order of their names: positive, and unrelated to each other.
_POINT = tuple(0.5 + (prime**0.5) % 1 for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37))
#: Where else formulas must agree to be taken for the same: there variables are negative, in turn and all.
_OTHER_POINTS = (
    tuple(value * (-1) ** place for place, value in enumerate(_POINT, 1)),
    tuple(-value - 1 for value in _POINT),
)
#: Where a root of an equation is looked for.
_GRID = tuple(-6.1 + 0.37 * step for step in range(34))
#: Values further apart than this, relative to the larger or to one, are different whatever was rounded; closer than that,
#: relative to the larger, they are the same as far as can be calculated.
_CLEAR, _CLOSE = 1e-5, 1e-12


def distance_of_numbers(reference: Any, answer: Any) -> float | None:
    """How far apart two numbers are, to six figures; None where one is no number, or infinite."""
    values = _number(reference), _number(answer)
    if values[0] is None or values[1] is None:
        return None
    return float(f"{abs(values[0] - values[1]):.6g}")


def out_of_reach(reference: Any, answer: Any) -> bool:
    """Whether two finite numbers cannot be compared because one is too large to be written out, or without a method."""
    numbers = [formula for formula in (reference, answer) if isinstance(formula, sympy.Expr) and formula.is_number]
    return len(numbers) == 2 and any(
        _number(number) is None and not number.has(sympy.oo, sympy.zoo, sympy.nan, sympy.UnevaluatedExpr)
        for number in numbers
    )


def has_decimal(*formulas: Any) -> bool:
    """Whether one of ``formulas`` holds a decimal."""
    return any(formula.has(sympy.Float) for formula in formulas if isinstance(formula, sympy.Basic))


def proven_different(reference: Any, answer: Any) -> bool:
    """Whether a point shows that two expressions, or two equations, are not the same."""
    if isinstance(reference, sympy.Eq) and isinstance(answer, sympy.Eq):
        return _equations_differ(reference, answer)
    values = _pair(reference, answer, _POINT)
    return values is not None and abs(values[0] - values[1]) > _CLEAR * max(1.0, *map(abs, values))


def likely_same(reference: Any, answer: Any) -> bool:
    """Whether two expressions without decimals have the same value wherever one looks."""
    if has_decimal(reference, answer):
        return False
    pairs = [_pair(reference, answer, point) for point in (_POINT, *_OTHER_POINTS)]
    return all(pair is not None and abs(pair[0] - pair[1]) <= _CLOSE * max(map(abs, pair)) for pair in pairs)


def _pair(reference: Any, answer: Any, point: Sequence[float]) -> tuple[complex, complex] | None:
    """The values of two expressions at ``point``; None where one is none, or has none."""
    if isinstance(answer, sympy.Eq) and isinstance(reference, sympy.Expr):
        answer = answer.rhs  # math-verify takes the right side, as far as the reference is no equation
    if isinstance(reference, sympy.Eq) and reference.lhs.is_Symbol and isinstance(answer, sympy.Expr):
        reference = reference.rhs
    if not isinstance(reference, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return None
    # Words are products of letters, or symbols with long names, and percentages have two values: math-verify tells.
    if any(formula.is_Symbol or formula.has(sympy.UnevaluatedExpr) for formula in (reference, answer)):
        return None
    names = sorted({symbol.name for symbol in reference.free_symbols | answer.free_symbols})
    if len(names) > len(point):
        return None
    at = dict(zip(names, point, strict=False))
    values = _value(reference, at), _value(answer, at)
    return values if values[0] is not None and values[1] is not None else None


def _number(formula: Any) -> complex | None:
    if not isinstance(formula, sympy.Expr) or not formula.is_number or formula.has(sympy.UnevaluatedExpr):
        return None
    return _value(formula, {})


def _value(formula: sympy.Expr, at: Mapping[str, float]) -> complex | None:
    """The value where the variables have the values ``at``, None where it is none or infinite."""
    try:
        value = complex(formula.evalf(15, subs={symbol: at[symbol.name] for symbol in formula.free_symbols}))
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return None  # an operator without a value: a sum with a variable bound, an unknown function
    return value if cmath.isfinite(value) else None


def _equations_differ(reference: sympy.Eq, answer: sympy.Eq) -> bool:
    """Whether some point fulfils the reference and not the answer.

    Derivatives and unknown functions count as variables: nothing is known of them.
    """
    try:
        sides = [equation.lhs - equation.rhs for equation in (reference, answer)]
        unknown = {part for side in sides for part in side.atoms(AppliedUndef, sympy.Derivative)}
        named = {part: sympy.Symbol(str(part)) for part in unknown}
        sides = [side.xreplace(named) for side in sides]
        names = sorted({symbol.name for side in sides for symbol in side.free_symbols})
        if not names or len(names) > len(_POINT):
            return False
        symbols = [sympy.Symbol(name) for name in names]
        sides = [side.xreplace({symbol: sympy.Symbol(symbol.name) for symbol in side.free_symbols}) for side in sides]
        one, other = (sympy.lambdify(symbols, side, "mpmath") for side in sides)
        for place in range(len(names)):
            point = _root(one, list(_POINT[: len(names)]), place)
            if point is not None:
                value = complex(other(*point))
                return cmath.isfinite(value) and abs(value) > 1e-3
    except (
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        NotImplementedError,
        NameError,
        SyntaxError,
        KeyError,
    ):
        pass  # a side without a value, or a set
    return False


def _root(function: Callable[..., Any], point: list[float], place: int) -> list[float] | None:
    """``point`` with its coordinate ``place`` moved to where ``function`` is zero; None where none is found."""

    def at(value: float) -> float | None:
        point[place] = value
        try:
            found = complex(function(*point))
        except (ArithmeticError, ValueError):
            return None
        return found.real if cmath.isfinite(found) and abs(found.imag) < 1e-12 else None

    previous: tuple[float, float] | None = None
    for value in _GRID:
        height = at(value)
        if height is not None and previous is not None and previous[1] * height < 0:
            low, high = previous[0], value
            for _ in range(60):
                middle = (low + high) / 2
                height = at(middle)
                if height is None:
                    return None
                if height * previous[1] > 0:
                    low = middle
                else:
                    high = middle
            # A pole changes its sign too.
            return list(point) if abs(at(low) or 0) < 1e-9 else None
        previous = None if height is None else (value, height)
    return None

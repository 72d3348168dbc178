"""Sums of products of sizes, such as 4·D² + D·F + D/16: what the number of a model's parameters is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, combinations_with_replacement

Monomial = tuple[tuple[str, int], ...]  # (symbol, exponent), sorted; exponents may be negative
ORDER = "VCBADXMGHEUFKNRLgb"
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Polynomial:
    """Σ coefficient · Π symbol^exponent, exactly."""

    terms: tuple[tuple[Monomial, Fraction], ...] = ()

    @staticmethod
    def of(terms: Mapping[Monomial, Fraction | int]) -> Polynomial:
        return Polynomial(tuple(sorted((m, Fraction(c)) for m, c in terms.items() if c)))

    @staticmethod
    def number(value: int) -> Polynomial:
        return Polynomial.of({(): value})

    def __add__(self, other: Polynomial) -> Polynomial:
        found = dict(self.terms)
        for monomial, c in other.terms:
            found[monomial] = found.get(monomial, Fraction(0)) + c
        return Polynomial.of(found)

    def __mul__(self, other: Polynomial) -> Polynomial:
        found: dict[Monomial, Fraction] = {}
        for a, c in self.terms:
            for b, d in other.terms:
                both = _product(a, b)
                found[both] = found.get(both, Fraction(0)) + c * d
        return Polynomial.of(found)

    def at(self, values: Mapping[str, int]) -> Fraction:
        """Its value where the symbols have these values."""
        return sum((c * _value(m, values) for m, c in self.terms), Fraction(0))

    @property
    def symbols(self) -> set[str]:
        return {symbol for monomial, _ in self.terms for symbol, _ in monomial}

    def __str__(self) -> str:
        ordered = sorted(
            self.terms, key=lambda term: (-sum(e for _, e in term[0]), [_rank(s) for s, _ in _read(term[0])])
        )
        text = " + ".join(_term(m, c) for m, c in ordered).replace("+ −", "− ")
        return text or "0"


def fitted(values: Sequence[int], symbols: Mapping[str, Sequence[int]]) -> Polynomial | None:
    """The simplest polynomial that has `values` where the symbols have theirs, at every probe; None where none is found.

    Looked for in this order: a number, c·A, c·A + d, c·A·B, c·A/B, c·A·B/C, and c·A·B + d·A′·B′.
    """
    if len(set(values)) == 1:
        return Polynomial.number(values[0])
    varying = [s for s in symbols if len(set(symbols[s])) > 1]
    probes = [{s: symbols[s][i] for s in varying} for i in range(len(values))]
    single: list[Monomial] = [((s, 1),) for s in varying]
    double = [_product(a, b) for a, b in combinations_with_replacement(single, 2)]
    ratio = [_product(m, ((s, -1),)) for m in double for s in varying if all(s != t for t, _ in m)]
    inverse = [_product(m, ((s, -1),)) for m in single for s in varying if ((s, 1),) != m]
    choices: list[Callable[[], list[tuple[Monomial, ...]]]] = [
        lambda: [(m,) for m in single],
        lambda: [(m, ()) for m in single],
        lambda: [(m,) for m in [*double, *inverse, *ratio]],
        lambda: list(combinations([(), *single, *double], 2)),
    ]
    columns: dict[Monomial, list[Fraction]] = {}
    for candidates in choices:
        for monomials in candidates():
            for m in monomials:
                if m not in columns:
                    columns[m] = [_value(m, probe) for probe in probes]
            found = _solved([columns[m] for m in monomials], values)
            if found is not None and all(c.denominator <= 64 for c in found):
                return Polynomial.of(dict(zip(monomials, found, strict=True)))
    return None


def _solved(columns: list[list[Fraction]], values: Sequence[int]) -> list[Fraction] | None:
    """c with Σ c_j · columns_j = values at every probe: from the first probes by elimination, then checked at all."""
    n = len(columns)
    rows = [[column[i] for column in columns] + [Fraction(values[i])] for i in range(len(values))]
    for j in range(n):
        pivot = next((i for i in range(j, len(rows)) if rows[i][j]), None)
        if pivot is None:
            return None
        rows[j], rows[pivot] = rows[pivot], rows[j]
        top = rows[j] = [x / rows[j][j] for x in rows[j]]
        rows = [
            row if i == j or not row[j] else [a - row[j] * b for a, b in zip(row, top, strict=True)]
            for i, row in enumerate(rows)
        ]
    return [rows[j][n] for j in range(n)] if not any(row[n] for row in rows[n:]) else None


def _product(a: Monomial, b: Monomial) -> Monomial:
    found = dict(a)
    for symbol, exponent in b:
        found[symbol] = found.get(symbol, 0) + exponent
    return tuple(sorted((s, e) for s, e in found.items() if e))


def _value(monomial: Monomial, values: Mapping[str, int]) -> Fraction:
    found = Fraction(1)
    for symbol, exponent in monomial:
        found *= Fraction(values[symbol]) ** exponent
    return found


def _read(monomial: Monomial) -> list[tuple[str, int]]:
    """In the order in which one reads: V·D, 2·D·F, H·E."""
    return sorted(monomial, key=lambda factor: _rank(factor[0]))


def _rank(symbol: str) -> tuple[int, str]:
    return (ORDER.index(symbol[0]) if len(symbol.rstrip("′")) == 1 and symbol[0] in ORDER else len(ORDER), symbol)


def _term(monomial: Monomial, c: Fraction) -> str:
    read = _read(monomial)
    above = [s + (str(e).translate(RAISED) if e > 1 else "") for s, e in read if e > 0]
    below = [s + (str(-e).translate(RAISED) if e < -1 else "") for s, e in read if e < 0]
    sign = "−" if c < 0 else ""
    top = "·".join(([f"{abs(c.numerator):,}"] if abs(c.numerator) != 1 or not above else []) + above)
    bottom = ([f"{c.denominator:,}"] if c.denominator != 1 else []) + below
    if not bottom:
        return sign + top
    return f"{sign}{top}/{bottom[0] if len(bottom) == 1 else '(' + '·'.join(bottom) + ')'}"

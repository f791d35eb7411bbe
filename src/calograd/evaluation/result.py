"""The result of an evaluation, whatever kind of showers was compared."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np

from calograd._version import __version__
from calograd.evaluation.classifier_tests import ClassifierTest
from calograd.evaluation.limits import LimitCheck, LimitSummary, describe_outcome, summarise
from calograd.io.markup import table


class SummaryTable(NamedTuple):
    """A short table of results, as the command and a notebook show it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Evaluation(ABC):
    """The outcome of a comparison of generated showers with Geant4's.

    Args:
        generated, reference: the records that were compared.
        tests: classifier tests; empty where none were asked for.
        checks: every number that has a limit, with its limit.
        warnings: sentences on what was left out and what looks odd.
        seed: seed of every bootstrap, split and classifier.
        files: paths of both files by ``generated`` and ``reference``; empty where records were given.
    """

    generated: Any = field(repr=False)
    reference: Any = field(repr=False)
    tests: tuple[ClassifierTest, ...]
    checks: tuple[LimitCheck, ...] = field(repr=False)
    warnings: tuple[str, ...]
    seed: int
    files: dict[str, str]

    @property
    def summaries(self) -> tuple[LimitSummary, ...]:
        """The checks counted by kind and subject."""
        return summarise(self.checks)

    @property
    def passed(self) -> bool:
        """True if every limit is kept."""
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """The outcome in words, beside what Geant4 itself would reach."""
        return describe_outcome(self.checks)

    @abstractmethod
    def tables(self) -> list[SummaryTable]:
        """Return the tables that summarise the result."""

    @abstractmethod
    def _contents(self) -> dict[str, Any]:
        """Return the schema and the parts of the result that are specific to the kind of showers."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as finite numbers, strings, lists and None, ready for strict JSON."""
        files = {"files": self.files} if self.files else {}
        contents = self._contents()
        schema = {"schema": contents.pop("schema"), "versions": versions(), "seed": self.seed}
        plain = jsonable(files | schema | {"warnings": list(self.warnings)} | contents)
        assert isinstance(plain, dict)
        return plain

    def _repr_html_(self) -> str:
        """Return the summary tables as HTML, for notebooks."""
        return "".join(table(*summary) for summary in self.tables())


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that results depend on; None for those not installed."""
    found: dict[str, str | None] = {"calograd": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch", "scikit-learn", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def jsonable(value: Any) -> Any:
    """Return ``value`` with numpy's numbers as Python's, NaN and infinities as None, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value

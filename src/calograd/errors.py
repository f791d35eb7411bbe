"""The errors a user can meet. Each carries one line: what was wrong, what was expected, what to do.

The command line prints ``str(error)`` and exits with code 2; no traceback is shown for these.
"""

from __future__ import annotations


class CaloGradError(Exception):
    """Base of every error that is the user's to mend, not a defect of the package."""

    def __str__(self) -> str:
        """The line, whatever keys or names with line breaks are quoted in it."""
        return " ".join(super().__str__().split())


class InputError(CaloGradError, ValueError):
    """An argument, option or configuration value cannot be used."""


class RangeError(InputError):
    """A design or energy lies outside the range a surrogate was trained on."""


class UtilityError(InputError):
    """A utility gives no number, or none that the design's gradient can be taken of."""


class FormatError(CaloGradError):
    """A file is missing, cut off, of another schema, newer than this version, or holds invalid values."""


class OutputExistsError(CaloGradError):
    """The output is already there; nothing is ever overwritten silently."""


class TablesError(CaloGradError):
    """The Geant4 data tables are missing or damaged."""


class SimulationError(CaloGradError):
    """Geant4 or a worker failed in a way that repeating did not mend."""


class Interrupted(CaloGradError):  # noqa: N818 - not a fault: the run can be resumed
    """Ctrl-C: the state on disk is complete and the same command resumes it."""

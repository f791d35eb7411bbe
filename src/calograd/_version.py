"""The version of CaloGrad."""

__version__ = "0.1.0"

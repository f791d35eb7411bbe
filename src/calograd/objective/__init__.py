"""Objectives of a design: background, readout, reconstruction, utility and cost; and the space of designs."""

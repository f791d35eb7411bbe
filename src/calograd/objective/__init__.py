"""What a design is worth: background, readout, reconstruction, utility, cost; and the space of designs."""

"""What the package needs of the machine: optional packages, interrupts, memory."""

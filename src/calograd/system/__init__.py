"""Services of the machine: optional packages, interrupts, memory, progress."""

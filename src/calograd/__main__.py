"""``python -m calograd COMMAND``, as torchrun starts it."""

from __future__ import annotations

from calograd.cli import main

if __name__ == "__main__":
    main()

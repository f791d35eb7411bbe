"""How many cases: few and always the same; CALOGRAD_FUZZ=N tries N random ones of every kind instead."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

NUMBER = int(os.environ.get("CALOGRAD_FUZZ", "0"))

settings.register_profile(
    "fuzz", max_examples=NUMBER or 25, derandomize=not NUMBER, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

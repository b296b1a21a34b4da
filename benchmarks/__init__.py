"""Benchmarks of gpumpi: a benchmark writes records, a report reads them."""

from __future__ import annotations

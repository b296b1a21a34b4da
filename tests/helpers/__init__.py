"""Helpers of the tests: real MPI jobs and what they leave."""

from __future__ import annotations

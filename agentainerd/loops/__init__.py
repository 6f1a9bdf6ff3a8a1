"""Cadence only: each loop is run_once(services, now) -> how many."""

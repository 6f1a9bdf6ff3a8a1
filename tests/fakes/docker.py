"""Fixtures on a real Docker Engine."""

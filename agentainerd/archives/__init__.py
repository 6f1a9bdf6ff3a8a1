"""Folders that somebody else writes to: listed, read and packed without being believed; knows neither jobs nor HTTP."""

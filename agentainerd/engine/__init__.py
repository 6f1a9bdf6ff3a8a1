"""The only code that knows Docker: it takes our specs and raises our errors."""

"""The runtime's own tools, one file each: `tool()` in each makes it, which is what the entry points name."""

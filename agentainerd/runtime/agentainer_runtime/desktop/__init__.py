"""A screen with a window manager, and notebooks, for people who watch: docs/desktop.md."""

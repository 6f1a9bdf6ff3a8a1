"""One file a noun; each is imported when one of its commands is used."""

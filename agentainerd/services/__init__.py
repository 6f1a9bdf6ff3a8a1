"""The verbs: one class a noun; each mutation is audited here, in one place."""

"""The control API over werkzeug: routing, authentication, errors, thin handlers."""

"""The version of both programs: a literal, so that reading it costs nothing."""

VERSION = "0.1.0"

"""Readers of foreign bytes, fed with what nobody would write: `python -m tests.fuzz --help`."""

"""Entrances and exits for other people's libraries, each loaded by who uses it."""

"""Exercises: scripts with gaps, what a solution promises, and the mistakes that are usually made."""

"""README and plots, made from the results: tables, sentences, curves, the staircase, and the pictures that
scripts draw.

Scripts take from here `overviews` (pictures of all their runs) and `plots`. `python -m common.report` writes
the page.
"""

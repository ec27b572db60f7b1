"""Results: the row of a run, the two files of results, and comparisons paired by seed.

Others take from here reading and appending of `logs/results_All.csv`.
"""

from common.results.table import (
    COLUMNS,
    FIRST_COLUMNS,
    TIMES,
    VARYING,
    append,
    check_writable,
    course_rows,
    git_commit,
    logged,
    matching,
    name_unknown_columns,
    read,
    results_path,
    timed,
)  # fmt: skip

__all__ = [
    "COLUMNS", "FIRST_COLUMNS", "TIMES", "VARYING", "append", "check_writable", "course_rows", "git_commit",
    "logged", "matching",
    "name_unknown_columns", "read", "results_path", "timed",
]  # fmt: skip

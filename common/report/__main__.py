"""`python -m common.report [--check]`: see common/report/update.py."""

from common.report.update import main

main()

"""`python -m common.results compare|diff A B`: see common/results/comparison.py."""

from common.results.comparison import main

main()

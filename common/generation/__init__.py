"""Text from a trained model: choosing the next token, and finding the model of a run.

Others take from here `generate` (tokens), `sample` (text) and `load_run`. `python -m common.generate` is the
program.
"""

from common.generation.sampling import Sampling, filtered, generate, sample

__all__ = ["Sampling", "filtered", "generate", "sample"]

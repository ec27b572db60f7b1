"""The GPT of the course as a base for later stages. What it is made of was taught in the stages that its parts name.

This package knows nothing of data, training or results.
"""

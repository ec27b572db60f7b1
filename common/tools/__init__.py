"""Programs around the course: run and prove its lines, look into a model, learn a vocabulary.

Each is called as `python -m common.tools.NAME`; nothing else imports them.
"""

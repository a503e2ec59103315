"""Measurements of what the design promises: each question is one file here.

Every limit is measured in the same run as what it limits, turn by turn, because this kind of
machine is noisy: believe ratios, not milliseconds. `python -m tools.bench --help`.
"""

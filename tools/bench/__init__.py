"""Measurements that compare pagestore with its peers and with the machine's limit, in one run.

`python -m tools.bench --help`. Every work item (`work/`) is one file, and so is every peer
(`peers/`); all do the same durable work, and what they return is compared with what must be there.
pagestore and the limit take turns, because machines are noisy: believe ratios, not milliseconds.
"""

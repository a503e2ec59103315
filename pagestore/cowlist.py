"""CopyOnWriteList: a growing sequence of numbers with any number of frozen snapshots."""


class CopyOnWriteList:
    """Placeholder until the workspace is proven."""

"""Crash and fault tests: every state that a crash may leave, every operation that may fail."""

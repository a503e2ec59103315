"""Others' tests of SQLite, run on databases in a store."""

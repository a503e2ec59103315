"""Measurements: each question of docs/ about speed, space or memory is one file here."""

"""Damaged inputs of every kind at every door."""

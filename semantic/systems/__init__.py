"""Baseline systems that the semantic codec is compared with."""

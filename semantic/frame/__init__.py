"""What crosses the border between codec and radio. NumPy only."""

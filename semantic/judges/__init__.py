"""Who judges what arrives; :mod:`semantic.judge` is the door."""

"""tipr ."""

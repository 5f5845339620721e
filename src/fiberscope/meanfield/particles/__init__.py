"""Finitely many neurons on the exact risk."""

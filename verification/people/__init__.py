"""Proof that every person reaches the seat that was given to them, in whatever order things happen."""

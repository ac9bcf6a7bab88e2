"""Statements about stored answers and request rates."""

"""Statements about quotes, ends and running purchases."""

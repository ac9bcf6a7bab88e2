"""Statements about customers and what belongs to one."""

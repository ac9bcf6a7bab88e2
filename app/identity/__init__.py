"""Identify the caller: tokens, key sets, service keys, and the customer that a login is linked to."""

"""Identify the caller: tokens, key sets, service keys, links to customers."""

"""Callers that compete: for the last seat, with the same request, for the same e-mail, in bulk."""

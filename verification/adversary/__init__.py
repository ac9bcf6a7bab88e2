"""Callers that want more than is theirs: other people's ids, forged credentials and deliveries, malformed bodies."""

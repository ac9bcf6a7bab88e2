"""Storms: what the service depends on fails while it works."""

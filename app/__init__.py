"""Coseat: Stripe Billing as shared, per-seat subscriptions behind a typed JSON API."""

__version__ = "0.1.0"

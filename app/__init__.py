"""Coseat: Stripe Billing as shared, per-seat subscriptions, as a JSON API."""

__version__ = "0.1.0"

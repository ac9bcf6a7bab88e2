"""The copy equals Stripe at rest, whatever the order, delay and repetition of its webhooks."""

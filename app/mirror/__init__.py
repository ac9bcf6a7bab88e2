"""The copy equals Stripe: webhooks, refreshes, list scans, reconcile and the first fill."""

"""Keep the mirror equal to Stripe: webhooks, refreshes, list scans, reconcile and the first fill."""

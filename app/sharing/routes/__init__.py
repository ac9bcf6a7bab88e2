"""The routes of shared subscriptions and of transfers."""

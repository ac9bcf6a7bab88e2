"""The routes of single subscriptions and of their changes."""

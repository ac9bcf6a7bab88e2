"""Requests and answers about subscriptions and their changes."""

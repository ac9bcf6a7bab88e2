"""Shared subscriptions: roles, seats, members, transfers and the audit trail."""

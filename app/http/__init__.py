"""Middleware, problems, answers, cursors, limits and idempotency of all routes."""

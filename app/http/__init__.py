"""What every route shares: the layers around a request, problems, answers, cursors, limits and idempotency."""

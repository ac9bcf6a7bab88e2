"""Parts that all routes share: middleware, problems, answers, cursors, limits and idempotency."""

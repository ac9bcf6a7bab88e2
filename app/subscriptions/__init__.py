"""Subscriptions: reading, buying, previewing, changing and ending them."""

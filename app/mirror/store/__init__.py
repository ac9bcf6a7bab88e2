"""Statements about mirrored objects, refreshes and webhook events."""

"""Statements about mirrored objects, refreshes, list scans and webhook events."""

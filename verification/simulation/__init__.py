"""Schedules of seat operations: a seed decides the order of statements, requests, answers and clock."""

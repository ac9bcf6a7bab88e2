"""Operate the service: health, metrics, the doctor and periodic upkeep."""

"""Metrics that the papers need."""

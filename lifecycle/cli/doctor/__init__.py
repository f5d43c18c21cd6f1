"""Examine a deployment and report what is wrong with it."""

"""Artifacts: files that an export job writes, and that are followed while they grow."""

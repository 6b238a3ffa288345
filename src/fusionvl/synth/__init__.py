"""Writes data sets. Knows samples as they are on disk, and no model."""

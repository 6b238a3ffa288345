"""Filters: each looks at rows and writes columns of scores. None removes a row, selection.py does."""

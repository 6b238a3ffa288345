"""The built-in benchmarks, one module for each kind of answer; `registry.py` finds them by name."""

"""Exact questions from the graph, one module a topic. Knows no pixels and no conversation formats."""

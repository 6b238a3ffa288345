"""The serving room: an OpenAI-compatible server over the engine. Knows HTTP and processes, not models' insides.

The server process imports no torch; models live in worker processes (`worker.py`).
"""

"""The serving room: one small OpenAI-compatible server, for one machine and one model. Knows HTTP, no model's inside.

Read `app.py` first, then `chat.py` and `waiting_line.py`; what keeps the server safe is in `gate.py`, `fetching.py`,
`images.py` and `connection.py`.
"""

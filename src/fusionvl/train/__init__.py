"""The training room: recipe -> data -> model -> trainer -> checkpoints. Start reading at `run.py`."""

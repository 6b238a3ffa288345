"""The ablation room: the same training with one idea of the paper switched off at a time. Knows no HTTP."""

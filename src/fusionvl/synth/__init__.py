"""The data engine: captions to described, drawn and questioned pictures (paper, section 3.4). Knows no FUSION model."""

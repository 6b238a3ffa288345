"""The data engine: from captions to described, drawn and questioned pictures. Knows no FUSION model."""

"""Servers on free ports, in a thread or as a process, with a scripted model or the shipped one."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

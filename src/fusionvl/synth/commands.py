"""The commands of the data engine: `fusionvl synth ACTION`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse

from fusionvl.synth.filter_commands import add_filter_commands


def add_synth_commands(synth: argparse.ArgumentParser) -> None:
    """Add the engine's actions to its command."""
    actions = synth.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_filter_commands(actions)

"""The commands of the data engine, `fusionvl synth ACTION`."""

import argparse
from typing import Any

from fusionvl.synth.filter_commands import add_filter_commands


def add_synth_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds `synth` with its actions to the commands of `fusionvl`."""
    synth = commands.add_parser("synth", help="make visual questions, filter them, write them for training")
    actions = synth.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_filter_commands(actions)

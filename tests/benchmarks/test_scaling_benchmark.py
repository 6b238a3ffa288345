"""The bars of batching: little padding at any number of latents, little waiting on any number of processes."""

import re

LATENTS = ("4", "16", "36", "64", "144", "drawn")


def test_padding_and_waiting_stay_below_their_bars(run_script):
    run = run_script("scaling.py", "--steps", "64", "--ranks", "8", "32")
    assert run.returncode == 0, run.stderr
    lines = re.findall(r"^ +(\w+) +(before|after) +(.+)$", run.stdout, flags=re.MULTILINE)
    shares = {(latents, rule): [float(share.rstrip("%")) for share in found.split()] for latents, rule, found in lines}
    assert set(shares) == {(latents, rule) for latents in LATENTS for rule in ("before", "after")}
    for latents in LATENTS:
        padding, *waiting = shares[latents, "after"]
        assert padding <= 10
        assert max(waiting) <= 5
    assert max(shares["drawn", "before"][1:]) > 30, "what there is to gain"

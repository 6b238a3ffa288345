"""Procedural scenes: pictures drawn from a graph, with questions and answers that are exact by construction."""

from fusionvl.synth.scenes.sample import SceneSample, scene_sample

__all__ = ["SceneSample", "scene_sample"]

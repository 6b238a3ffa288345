"""Tells lmms-eval that there is a model called `fusionvl`: the payload of the entry point `lmms_eval.models`.

lmms-eval imports this at every run, whatever is scored, so it imports nothing heavy. Knows the class's name only.
"""

from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

MANIFEST = ModelManifest(model_id="fusionvl", chat_class_path="fusionvl.eval.lmms_eval_model.FusionForLmmsEval")

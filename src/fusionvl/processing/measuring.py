"""Counts the tokens a sample takes, by really encoding it: what verification of a data set asks for.

Knows a processor by its folder or name, so that it can be sent to other processes. Knows no mixtures.
"""

from dataclasses import dataclass
from functools import cached_property

from fusionvl.data.record_file import Reopened
from fusionvl.data.sample import Sample, to_messages
from fusionvl.processing.image_loading import load_image
from fusionvl.processing.processing import FusionProcessor


@dataclass(frozen=True)
class TokenCounter(Reopened):
    """Callable: a sample in, its tokens out, after its image was opened and everything encoded.

    Attributes:
        processor_folder: Folder or hub name of the processor.
        max_length: Tokens a row may have; turns that do not fit are left out.
    """

    processor_folder: str
    max_length: int | None = None

    @cached_property
    def processor(self) -> FusionProcessor:
        """Loaded when first asked for, in each process anew.

        Raises:
            OSError: There is none of that name.
            ValueError: Its files cannot be used.
        """
        return FusionProcessor.from_pretrained(self.processor_folder)

    def __call__(self, sample: Sample) -> int:
        """Encode a sample.

        Raises:
            OverLongError: Not even its first turn fits.
            ValueError: Its image or conversation cannot be used; with the reason.
        """
        messages = to_messages(sample)
        if sample.image is not None:
            messages[0]["content"][0] = {"type": "image", "image": load_image(sample.image)}
        options = {} if self.max_length is None else {"max_length": self.max_length}
        encoded = self.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, processor_kwargs=options
        )
        return int(encoded["input_ids"].shape[1])

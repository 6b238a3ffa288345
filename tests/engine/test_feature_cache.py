"""The cache of image features: keyed by content, bounded in bytes, the longest unused goes first, safe in threads."""

import threading

import pytest
import torch

from fusionvl.engine.feature_cache import FeatureCache
from fusionvl.model.image_encoding import ImageFeatures
from fusionvl.model.vision_encoder import PatchStates

BYTES = 4 * 10  # of one entry


def pixels(content):
    return torch.full((1, 5, 3, 2, 2), float(content))


def features_of(pixel_values):
    return ImageFeatures(pixel_values.flatten()[:1].expand(10).clone(), None)


class Counting:
    def __init__(self):
        self.calls = []

    def __call__(self, pixel_values):
        self.calls.append(pixel_values.flatten()[0].item())
        return features_of(pixel_values)


@pytest.fixture
def compute():
    return Counting()


def test_equal_content_is_computed_once(compute):
    cache = FeatureCache(10 * BYTES)
    first = cache.get(pixels(1), compute)
    assert cache.get(pixels(1).clone(), compute) is first
    assert cache.get(pixels(2), compute).global_features[0] == 2
    assert compute.calls == [1, 2]
    assert (cache.hits, cache.misses, cache.num_bytes) == (1, 2, 2 * BYTES)


def test_a_view_of_the_batch_is_as_good_as_a_copy(compute):
    cache = FeatureCache(10 * BYTES)
    batch = torch.cat([pixels(1), pixels(2)]).transpose(3, 4)
    for image in batch.split(1):
        cache.get(image, compute)
    cache.get(pixels(2), compute)
    assert compute.calls == [1, 2]


def test_the_longest_unused_goes_first(compute):
    cache = FeatureCache(2 * BYTES)
    for content in (1, 2, 1, 3):  # 2 is now the longest unused
        cache.get(pixels(content), compute)
    assert cache.num_bytes == 2 * BYTES
    cache.get(pixels(1), compute)
    assert compute.calls == [1, 2, 3]
    cache.get(pixels(2), compute)
    assert compute.calls == [1, 2, 3, 2]
    cache.get(pixels(3), compute)
    assert compute.calls == [1, 2, 3, 2, 3]


@pytest.mark.parametrize("max_bytes", [0, BYTES - 1])
def test_what_is_too_large_is_not_kept_and_evicts_nothing(compute, max_bytes):
    cache = FeatureCache(max_bytes)
    for _ in range(2):
        assert cache.get(pixels(1), compute).global_features[0] == 1
    assert compute.calls == [1, 1]
    assert (cache.num_bytes, cache.hits) == (0, 0)


def test_a_failure_is_not_remembered(compute):
    cache = FeatureCache(10 * BYTES)

    def fail(_):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        cache.get(pixels(1), fail)
    assert cache.get(pixels(1), compute).global_features[0] == 1


def test_bytes_of_all_parts_count():
    tensor = torch.zeros(1, 3)
    states = PatchStates(tensor, tensor, tensor, [(tensor, tensor)])
    assert ImageFeatures(None, None).num_bytes == 0
    assert ImageFeatures(tensor.bfloat16(), None).num_bytes == 6
    assert ImageFeatures(tensor, states).num_bytes == 12 + 5 * 12


def test_many_threads():
    cache = FeatureCache(3 * BYTES)
    wrong = []

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        for content in torch.randint(0, 6, (200,), generator=generator).tolist():
            if cache.get(pixels(content), features_of).global_features[0] != content:
                wrong.append(content)
            if cache.num_bytes > 6 * BYTES:  # each thread may be between adding and evicting
                wrong.append(cache.num_bytes)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.hits + cache.misses == 800
    assert cache.num_bytes == sum(entry.num_bytes for entry in cache._entries.values()) <= 3 * BYTES

"""Generation: transformers' own strategies, with images in the prefill and placeholders that no processor sees."""

import threading

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria, TextStreamer

NEW = 6


@pytest.fixture(scope="session")
def lively(tiny):
    """Models whose greedy answers differ from prompt to prompt and from token to token."""
    return lambda family="llama": tiny.randomise(tiny.model(family), gain=2.0)


def generate(model, batch, **settings):
    return model.generate(**batch, **{"max_new_tokens": NEW, "do_sample": False} | settings)


def prompts(tiny, *seeds, turns=1, side="left"):
    return tiny.batch([tiny.row(seed, turns=turns, answer_last=False) for seed in seeds], side)


@torch.no_grad()
def by_hand(model, batch, steps=NEW):
    """Greedy search without any cache: the whole sequence anew for every token, of one row."""
    batch = dict(batch)
    tokens = []
    for _ in range(steps):
        tokens.append(model(**batch).logits[0, -1].argmax().item())
        batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([[tokens[-1]]])], dim=1)
        for name, value in {"attention_mask": 1, "mm_token_type_ids": 0}.items():
            batch[name] = torch.cat([batch[name], torch.tensor([[value]])], dim=1)
    return tokens


def answers(sequences, batch):
    return sequences[:, batch["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("turns", [1, 3])
def test_greedy_equals_the_whole_sequence_anew(tiny, lively, family, turns):
    model, batch = lively(family), prompts(tiny, 0, turns=turns)
    sequences = generate(model, batch)
    assert answers(sequences, batch) == [by_hand(model, batch)]
    assert torch.equal(sequences[:, :-NEW], batch["input_ids"]), "the prompt comes back as given"
    assert batch["input_ids"].max() > 63, "with placeholders outside the vocabulary"
    assert torch.equal(generate(model, batch, use_cache=False), sequences)


def test_answers_vary(tiny, lively, family):
    """Random weights tend to repeat themselves: equal tokens shall not be equal by chance."""
    model, found = lively(family), set()
    for seed in range(4):
        batch = prompts(tiny, seed)
        answer = answers(generate(model, batch), batch)[0]
        tiles = batch["pixel_values"].flip(1)
        assert answers(generate(model, batch | {"pixel_values": tiles}), batch)[0] != answer
        found.add(tuple(answer))
    assert len(found) == 4
    assert max(len(set(answer)) for answer in found) >= 4


def test_batch_of_images_and_text_equals_single_rows(tiny, lively, family):
    model = lively(family)
    rows = [
        tiny.row(0, turns=2, answer_last=False),
        tiny.row(1, image=False, answer_last=False),
        tiny.row(2, answer_last=False, guide_length=2),
        tiny.row(3, turns=3, answer_last=False, guide_length=9),
    ]
    batch = tiny.batch(rows, "left")
    together = answers(generate(model, batch), batch)
    for row, found in zip(rows, together, strict=True):
        alone = tiny.batch([row])
        assert answers(generate(model, alone), alone) == [found]


def test_text_alone(tiny, lively):
    model = lively()
    batch = tiny.batch([tiny.row(0, image=False, answer_last=False)])
    assert answers(generate(model, batch), batch) == [by_hand(model, batch)]
    batch.pop("mm_token_type_ids")
    assert answers(generate(model, batch), batch) == [
        by_hand(model, batch | {"mm_token_type_ids": torch.zeros_like(batch["input_ids"])})
    ]


def test_right_padding_is_moved_to_the_left(tiny, lively):
    """Generation goes on where rows end, so the padding must not stand there."""
    model = lively()
    rows = [tiny.row(0, answer_last=False), tiny.row(1, turns=2, answer_last=False)]
    rows.insert(1, tiny.row(2, image=False, answer_last=False))
    left, right = tiny.batch(rows, "left"), tiny.batch(rows, "right")
    assert not torch.equal(left["input_ids"], right["input_ids"])
    assert torch.equal(generate(model, right), generate(model, left))
    for row, found in zip(rows, answers(generate(model, right), right), strict=True):
        alone = tiny.batch([row])
        assert answers(generate(model, alone), alone) == [found]


class TestStrategies:
    def test_sampling_follows_the_seed(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0, 1)
        settings = {"do_sample": True, "temperature": 1.5, "top_k": 0}

        def sample(seed):
            torch.manual_seed(seed)
            return generate(model, batch, **settings)

        assert torch.equal(sample(0), sample(0))
        assert not torch.equal(sample(0), sample(1))

    def test_beams_are_as_probable_as_said(self, tiny, lively, family):
        model, batch = lively(family), prompts(tiny, 0, 1)
        output = generate(
            model, batch, num_beams=3, return_dict_in_generate=True, output_scores=True, length_penalty=0.0
        )
        assert output.sequences.shape == (2, batch["input_ids"].shape[1] + NEW)
        greedy = answers(generate(model, batch), batch)
        for row, seed in enumerate((0, 1)):
            alone = prompts(tiny, seed)
            beam = answers(output.sequences, batch)[row]
            found = self.log_probability(model, alone, beam)
            assert found == pytest.approx(output.sequences_scores[row].item(), abs=1e-3)
            assert found >= self.log_probability(model, alone, greedy[row]) - 1e-4
            assert answers(generate(model, alone, num_beams=3, length_penalty=0.0), alone) == [beam]

    @staticmethod
    @torch.no_grad()
    def log_probability(model, batch, tokens):
        batch, total = dict(batch), 0.0
        for token in tokens:
            total += model(**batch).logits[0, -1].log_softmax(-1)[token].item()
            batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([[token]])], dim=1)
            for name, value in {"attention_mask": 1, "mm_token_type_ids": 0}.items():
                batch[name] = torch.cat([batch[name], torch.tensor([[value]])], dim=1)
        return total

    def test_several_sequences_a_row(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0, 1)
        output = generate(model, batch, num_beams=4, num_return_sequences=3)
        length = batch["input_ids"].shape[1]
        assert torch.equal(output[:, :length], batch["input_ids"].repeat_interleave(3, 0))
        assert len({tuple(row) for row in answers(output, batch)}) == 6
        torch.manual_seed(0)
        sampled = generate(model, batch, do_sample=True, num_return_sequences=2)
        assert torch.equal(sampled[:, :length], batch["input_ids"].repeat_interleave(2, 0))

    @pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
    def test_shared_features(self, tiny, lively, settings):
        model = lively()
        rows = [tiny.row(0, answer_last=False), tiny.row(2, image=False), tiny.row(1, turns=2, answer_last=False)]
        batch = tiny.batch(rows, "left")
        if settings:  # with several sequences a row, every row needs an image or none has one
            batch = prompts(tiny, 0, 1)
        expected = generate(model, batch, **settings)
        with torch.no_grad():
            features = model.get_global_features(batch["pixel_values"])
            states = model.get_patch_states(batch["pixel_values"])
        base = batch | {"pixel_values": batch["pixel_values"][:, -1:]}
        assert torch.equal(generate(model, base, global_features=features, **settings), expected)
        assert torch.equal(generate(model, batch, patch_states=states, **settings), expected)
        both = generate(model, base, patch_states=states, global_features=features, **settings)
        assert torch.equal(both, expected)

    def test_mixed_rows_with_beams(self, tiny, lively):
        """Images belong to rows with image tokens; copying rows for beams must not move them."""
        model = lively()
        rows = [tiny.row(2, image=False), tiny.row(0, answer_last=False), tiny.row(1, turns=2, answer_last=False)]
        batch = tiny.batch(rows, "left")
        together = answers(generate(model, batch, num_beams=3), batch)
        for row, found in zip(rows, together, strict=True):
            alone = tiny.batch([row])
            assert answers(generate(model, alone, num_beams=3), alone) == [found]

    def test_static_cache(self, tiny, lively, family):
        model, batch = lively(family), prompts(tiny, 0, 1, turns=2)
        static = generate(model, batch, cache_implementation="static", disable_compile=True)
        assert torch.equal(static, generate(model, batch))

    def test_all_outputs(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0)
        output = generate(model, batch, return_dict_in_generate=True, output_logits=True, output_hidden_states=True)
        assert torch.equal(output.sequences, generate(model, batch))
        assert len(output.logits) == NEW
        with torch.no_grad():
            first = model(**batch).logits[0, -1]
        assert torch.allclose(output.logits[0][0], first, atol=1e-5)
        assert output.hidden_states[0][0].shape[1] == batch["input_ids"].shape[1]
        assert output.hidden_states[1][0].shape[1] == 1

    def test_prompt_lookup_refuses_or_agrees(self, tiny, lively):
        """Speculation on the prompt's own tokens: a wrong answer must not come silently."""
        model, batch = lively(), prompts(tiny, 0)
        expected = generate(model, batch)
        assert torch.equal(generate(model, batch, prompt_lookup_num_tokens=2), expected)


class TestPlaceholders:
    @pytest.mark.parametrize("settings", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}])
    def test_processors_that_look_up_the_prompt(self, tiny, lively, settings):
        model, batch = lively(), prompts(tiny, 0)
        sequences = generate(model, batch, **settings)
        assert sequences.max(dim=1).values[0] == model.config.latent_token_id
        assert answers(sequences, batch)[0] != answers(generate(model, batch), batch)[0]
        assert torch.equal(sequences[:, :-NEW], batch["input_ids"])

    def test_no_processor_sees_an_id_outside_the_vocabulary(self, tiny, lively):
        class Watch(LogitsProcessor):
            largest = 0

            def __call__(self, input_ids, scores):
                Watch.largest = max(Watch.largest, int(input_ids.max()))
                return scores

        generate(lively(), prompts(tiny, 0), logits_processor=[Watch()])
        assert 0 < Watch.largest < 64

    def test_placeholders_inside_the_vocabulary(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0)
        expected = answers(generate(model, batch), batch)
        ids = batch["input_ids"].where(batch["input_ids"] < 64, 50)
        assert answers(generate(model, batch | {"input_ids": ids}), batch) == expected

    def test_ids_as_first_argument(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0)
        expected = generate(model, batch)
        ids = batch.pop("input_ids")
        assert torch.equal(model.generate(ids, **batch, max_new_tokens=NEW, do_sample=False), expected)

    def test_the_callers_tensors_stay_as_they_are(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0, 1)
        before = {name: tensor.clone() for name, tensor in batch.items()}
        generate(model, batch, num_beams=2)
        assert all(torch.equal(batch[name], tensor) for name, tensor in before.items())


class TestStopping:
    def test_end_of_sequence(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0, 1)
        free = answers(generate(model, batch), batch)
        end = free[0][2]
        stopped = answers(generate(model, batch, eos_token_id=end), batch)
        place = free[0].index(end)
        assert stopped[0][: place + 1] == free[0][: place + 1]
        assert set(stopped[0][place + 1 :]) <= {0}

    def test_own_criteria(self, tiny, lively):
        class AfterThree(StoppingCriteria):
            def __call__(self, input_ids, scores, **kwargs):
                return torch.full((input_ids.shape[0],), input_ids.shape[1] >= length + 3)

        model, batch = lively(), prompts(tiny, 0)
        length = batch["input_ids"].shape[1]
        sequences = generate(model, batch, stopping_criteria=[AfterThree()])
        assert torch.equal(sequences, generate(model, batch)[:, : length + 3])

    def test_streamer_gets_the_answer_and_nothing_outside_the_vocabulary(self, tiny, lively):
        class Collect(TextStreamer):
            def __init__(self):
                self.seen, self.ended = [], False

            def put(self, value):
                self.seen.append(value.flatten().tolist())

            def end(self):
                self.ended = True

        model, batch, streamer = lively(), prompts(tiny, 0), Collect()
        sequences = generate(model, batch, streamer=streamer)
        assert [token for put in streamer.seen[1:] for token in put] == answers(sequences, batch)[0]
        assert len(streamer.seen[0]) == batch["input_ids"].shape[1]
        assert max(streamer.seen[0]) < 64
        assert streamer.ended


class TestRefusals:
    def test_chunked_prefill(self, tiny, lively):
        model, batch = lively(), prompts(tiny, 0)
        with pytest.raises(ValueError, match="prefill_chunk_size cannot be used"):
            generate(model, batch, prefill_chunk_size=8)
        with pytest.raises(ValueError, match="prefill_chunk_size cannot be used"):
            model.generate(**batch, generation_config=GenerationConfig(prefill_chunk_size=8, max_new_tokens=2))
        model.generation_config.prefill_chunk_size = 8
        with pytest.raises(ValueError, match="prefill_chunk_size cannot be used"):
            generate(model, batch)

    def test_no_ids(self, tiny, lively):
        batch = prompts(tiny, 0)
        batch.pop("input_ids")
        with pytest.raises(ValueError, match="generate needs input_ids"):
            generate(lively(), batch)

    def test_images_that_do_not_fit(self, tiny, lively):
        batch = prompts(tiny, 0, 1)
        with pytest.raises(ValueError, match="Image features and image tokens do not match"):
            generate(lively(), batch | {"pixel_values": batch["pixel_values"][:1]})


def test_images_are_encoded_once(tiny, lively, count_calls):
    model = lively()
    calls = count_calls(model.model.vision_tower)
    generate(model, prompts(tiny, 0))
    assert len(calls) == 2  # tiles and base view, in the prefill


def test_two_threads_at_once(tiny, lively):
    model = lively()
    batches = [prompts(tiny, 0, turns=2), prompts(tiny, 1, 2), prompts(tiny, 3)]
    expected = [generate(model, batch, max_new_tokens=20) for batch in batches]
    found = [[] for _ in batches]
    start = threading.Barrier(len(batches))

    def work(index):
        start.wait()
        for _ in range(3):
            found[index].append(generate(model, batches[index], max_new_tokens=20))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, sequences in enumerate(expected):
        assert len(found[index]) == 3
        assert all(torch.equal(sequence, sequences) for sequence in found[index])

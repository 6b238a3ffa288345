"""The built-in scorers against lmms-eval's own functions, on the same random answers.

Where answers have the form that was asked for, both agree to the last digit. Where lmms-eval departs from a
benchmark's own definition, or takes an answer for what it does not say, the difference is written down as a test.
"""

import itertools
import random
from statistics import mean

import pytest
from lmms_eval.api.metrics import anls, exact_match_hf_evaluate
from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
from lmms_eval.tasks.ai2d import utils as ai2d
from lmms_eval.tasks.chartqa import utils as chartqa
from lmms_eval.tasks.cv_bench import utils as cv_bench
from lmms_eval.tasks.hallusion_bench import utils as hallusion
from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator
from lmms_eval.tasks.mme import utils as mme
from lmms_eval.tasks.mmstar import utils as mmstar
from lmms_eval.tasks.mmvp import utils as mmvp
from lmms_eval.tasks.ocrbench import utils as ocrbench
from lmms_eval.tasks.pope import utils as pope
from lmms_eval.tasks.realworldqa import utils as realworldqa
from lmms_eval.tasks.scienceqa import utils as scienceqa
from lmms_eval.tasks.textvqa import utils as textvqa

from fusionvl.eval.scorers import (
    score_anls,
    score_choice,
    score_contains,
    score_exact,
    score_relaxed,
    score_vqa,
    score_yes_no,
)
from fusionvl.eval.task import Sample
from fusionvl.eval.tasks.registry import find_task
from fusionvl.eval.vqa_normalisation import normalise_vqa

pytestmark = pytest.mark.slow  # importing lmms-eval alone takes most of the ten seconds

TIMES = 2000
TEXT = (
    "stop yes no none two ten a an the dont don't wouldnt somebody'd it's 1,000 3.5 .5 7. p.m. coca-cola red/blue "
    "(left) what? 10% $5 a;b x_y [z] ow's'at youll No. ! -- 5,000.00 ..."
)
WORDS = TEXT.split()
OPTIONS = {"A": "cat", "B": "dog", "C": "hen", "D": "cow"}


@pytest.fixture
def draw():
    return random.Random(0)


def phrase(draw):
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))


def lettered(draw, letter):
    """A letter in a form that every parser here understands."""
    return draw.choice([letter, f"{letter}.", f"{letter}. {OPTIONS[letter]}"])


def sample(number, verdict, reference, details):
    return Sample(
        str(number), "?", "!", verdict.parsed, verdict.score, verdict.reason, reference, details, "stop", str(number)
    )


def summary(task, samples):
    return find_task(task).summarise(samples)


def test_vqa_normalisation_is_the_same(draw):
    theirs = EvalAIAnswerProcessor()
    characters = "aT 1,.?'\"-/;:!()\n\tß$%"
    for _ in range(TIMES):
        text = draw.choice([phrase(draw), "".join(draw.choices(characters, k=draw.randint(1, 12)))])
        assert normalise_vqa(text) == theirs(text), repr(text)


def test_textvqa_is_the_same(draw):
    scores = set()
    for _ in range(TIMES):
        few = [phrase(draw) for _ in range(3)]
        answers, answer = draw.choices(few, k=10), draw.choice(few)
        theirs = textvqa.textvqa_process_results({"question_id": 1, "answers": list(answers)}, [answer])["exact_match"]
        assert score_vqa(answer, answers).score == pytest.approx(theirs, abs=1e-12), (answer, answers)
        scores.add(round(theirs, 6))
    assert len(scores) > 3  # not all right or all wrong


def test_anls_is_the_same(draw):
    scores = set()
    for _ in range(TIMES):
        references = [phrase(draw) for _ in range(draw.randint(1, 3))]
        answer = list(draw.choice(references))
        for _ in range(draw.randint(0, 5)):
            answer[draw.randrange(len(answer))] = draw.choice("ab 1")
        text = "".join(answer)
        if text.strip():
            theirs = anls(references, [text])["anls"]
            assert score_anls(text, references).score == pytest.approx(theirs, abs=1e-12), (text, references)
            scores.add(round(theirs, 6))
    assert 0 in scores
    assert len(scores) > 10


def test_relaxed_accuracy_is_the_same(draw):
    scores = []
    for _ in range(TIMES):
        reference = draw.choice([f"{draw.uniform(-200, 200):.2f}", f"{draw.randint(0, 99)}%", "0", "Germany", "2,010"])
        near = [reference, reference.lower(), f"{draw.uniform(-200, 200):.1f}", "Yes", "", "nan", f"{reference}%"]
        if reference.lstrip("-").replace(".", "").isdigit():
            near.append(f"{float(reference) * draw.uniform(0.93, 1.07):.4f}")
        answer = draw.choice(near)
        theirs = chartqa.chartqa_process_results({"type": "human_test", "answer": reference}, [answer])
        assert score_relaxed(answer, [reference]).score == theirs["relaxed_overall"], (answer, reference)
        scores.append(theirs["relaxed_overall"])
    assert 0.2 < mean(scores) < 0.9


def test_ocrbench_is_the_same(draw):
    scores = []
    for _ in range(TIMES):
        references = [phrase(draw) for _ in range(2)]
        within = f"It says {draw.choice(references).upper()}\nthere"
        answer = draw.choice([phrase(draw), within, draw.choice(references)])
        if draw.random() < 0.3:
            answer = answer.replace(" ", "")
        part = draw.choice(["IIIT5K", "HME100k"])
        doc = {"dataset": part, "question_type": "x", "answer": references}
        theirs = ocrbench.ocrbench_process_results(doc, [answer])["ocrbench_accuracy"]["score"]
        assert score_contains(answer, references, formula=part == "HME100k").score == theirs, (answer, references)
        scores.append(theirs)
    assert 0.2 < mean(scores) < 0.9


def test_ocrbench_differs_in_full_width_letters():
    doc = {"dataset": "IIIT5K", "question_type": "x", "answer": ["AB"]}
    assert ocrbench.ocrbench_process_results(doc, ["\uff21\uff22"])["ocrbench_accuracy"]["score"] == 1
    assert score_contains("\uff21\uff22", ["AB"]).score == 0


def yes_no(draw, answers):
    """References, answers, and our samples of them, half of them in one POPE category."""
    pairs = [(draw.choice(["yes", "no"]), draw.choice(answers)) for _ in range(TIMES)]
    ours = [
        sample(number, score_yes_no(answer, reference), reference, {"category": "random"})
        for number, (reference, answer) in enumerate(pairs)
    ]
    return pairs, ours


def test_pope_is_the_same_for_plain_answers(draw):
    pairs, samples = yes_no(draw, ["yes", "No", "YES ", "no"])
    results = [
        pope.pope_process_results({"question_id": "1", "answer": reference}, [answer])["pope_accuracy"]
        for reference, answer in pairs
    ]
    theirs = {
        "accuracy": pope.pope_aggregate_accuracy(results),
        "precision": pope.pope_aggregate_precision(results),
        "recall": pope.pope_aggregate_recall(results),
        "f1": pope.pope_aggregate_f1_score(results),
    }
    ours = summary("pope", samples)
    assert {name: ours[name] / 100 for name in theirs} == pytest.approx(theirs)


def test_pope_differs_in_yes_ratio_and_full_stops_and_unparsed_answers(draw):
    """There the ratio is of the references, "Yes." is wrong, and an answer that is neither is not a miss."""
    pairs, samples = yes_no(draw, ["yes", "yes", "no", "perhaps"])
    results = [
        pope.pope_process_results({"question_id": "1", "answer": reference}, [answer])["pope_accuracy"]
        for reference, answer in pairs
    ]
    ours = summary("pope", samples)
    assert pope.pope_aggregate_yes_ratio(results) == mean(reference == "yes" for reference, _ in pairs)
    assert ours["yes_ratio"] / 100 == pytest.approx(mean(answer == "yes" for _, answer in pairs))
    wanted = [answer for reference, answer in pairs if reference == "yes"]
    assert ours["recall"] / 100 == pytest.approx(mean(answer == "yes" for answer in wanted))
    plain = [answer for answer in wanted if answer != "perhaps"]
    assert pope.pope_aggregate_recall(results) == pytest.approx(mean(answer == "yes" for answer in plain))
    assert pope.pope_process_results({"question_id": "1", "answer": "yes"}, ["Yes."])["pope_accuracy"]["score"] == 0
    assert score_yes_no("Yes.", "yes").score == 1


def test_mme_is_the_same_for_plain_answers(draw):
    theirs, ours = {"mme_perception_score": [], "mme_cognition_score": []}, []
    categories = [category for part in mme.eval_type_dict.values() for category in part]
    for number in range(TIMES // 2):
        category = draw.choice(categories)
        for reference in ("Yes", "No"):
            answer = draw.choice(["Yes", "no", "No.", "yes, it is", "No, it is not", "maybe"])
            doc = {"question_id": str(number), "category": category, "answer": reference}
            for part, result in mme.mme_process_results(doc, [answer]).items():
                theirs[part].append(result)
            details = {"category": category, "group": f"{category}/{number}"}
            ours.append(sample(len(ours), score_yes_no(answer, reference), reference.lower(), details))
    metrics = summary("mme", ours)
    assert metrics["perception"] == pytest.approx(mme.mme_aggregate_results(theirs["mme_perception_score"]))
    assert metrics["cognition"] == pytest.approx(mme.mme_aggregate_results(theirs["mme_cognition_score"]))


@pytest.mark.parametrize(
    ("answer", "theirs", "ours"),
    [
        ("The answer is yes.", "other", "yes"),  # only the first four letters are looked at
        ("Nothing", "no", None),  # begins with "no"
        ("I know", "other", None),
        ("y", "yes", None),
    ],
)
def test_mme_differs_where_answers_are_not_plain(answer, theirs, ours):
    assert mme.parse_pred_ans(answer) == theirs
    assert score_yes_no(answer, "yes").parsed == ours


def test_hallusion_bench_is_the_same_where_the_answers_are_read_alike(draw):
    """Their reader is GPT-4; given the same readings, the three shares are the same."""
    data, ours = [], []
    for category, number, figure, question in itertools.product(("VD", "VS"), range(20), "12", "01"):
        right = draw.random() < 0.8
        parts = {"category": category, "subcategory": "x", "set_id": number, "figure_id": figure}
        data.append({**parts, "question_id": question, "visual_input": "1", "read": "1" if right else "0"})
        details = {"group": f"{category}/x/{number}", "figure": figure, "question": question}
        ours.append(sample(len(ours), score_yes_no("yes" if right else "no", "yes"), "yes", details))
    hallusion.assign_correctness(data, "read")
    theirs = {
        "aAcc": hallusion.get_eval_all(data, "read"),
        "fAcc": hallusion.get_eval_fig(data),
        "qAcc": hallusion.get_eval_pair_all(data, "read"),
    }
    shares = {name: 100 * found["correct"] / found["total"] for name, found in theirs.items()}
    assert summary("hallusion_bench_image", ours) == pytest.approx(shares)


def choices(draw, count=TIMES):
    """References and answers that name a letter."""
    return [(draw.choice("ABCD"), lettered(draw, draw.choice("ABCD"))) for _ in range(count)]


def test_ai2d_and_scienceqa_are_the_same_for_plain_answers(draw):
    their_filter = ai2d.MultiChoiceRegexFilter()
    for reference, answer in choices(draw):
        ours = score_choice(answer, reference, OPTIONS).score
        filtered = their_filter.apply([[answer]], [{}])
        matched = exact_match_hf_evaluate(filtered, [reference], ignore_case=True, ignore_punctuation=True)
        assert ours == matched["exact_match"], answer
        doc = {"choices": list(OPTIONS.values()), "answer": "ABCD".index(reference)}
        assert ours == scienceqa.sqa_process_results(doc, [answer])["exact_match"], answer


def test_realworldqa_is_the_same_for_plain_answers(draw):
    for reference, answer in choices(draw):
        theirs = realworldqa.realworldqa_process_results({"answer": reference}, [answer])["exact_match"]
        assert score_choice(answer, reference, OPTIONS).score == theirs, answer
    for answer in ("3", "3.", "three", "Uphill", "uphill.", "4"):
        for reference in ("3", "Uphill"):
            theirs = realworldqa.realworldqa_process_results({"answer": reference}, [answer])["exact_match"]
            assert score_exact(answer, [reference]).score == theirs, answer


def test_cv_bench_is_the_same_by_its_own_formula(draw):
    theirs, ours = [], []
    for number, (reference, answer) in enumerate(choices(draw)):
        source = draw.choice(["ADE20K", "COCO", "COCO", "Omni3D"])
        doc = {"idx": number, "answer": f"({reference})", "type": "2D", "task": "Count", "source": source}
        theirs.append(cv_bench.cv_bench_process_results(doc, [answer])["cv_bench_acc"])
        verdict = score_choice(answer, reference, OPTIONS)
        ours.append(sample(number, verdict, reference, {"source": source, "task": "Count"}))
    metrics = summary("cv_bench", ours)
    assert metrics["accuracy"] / 100 == pytest.approx(cv_bench.cv_bench_default_aggregate_results(theirs))


def test_cv_bench_differs_in_what_is_reported_and_in_taking_first_letters_for_options():
    """There the task reports the mean of all questions; its function with the paper's formula is not used."""
    right = {"ADE20K": [True, False], "COCO": [True], "Omni3D": [False]}
    results = [{"source": source, "is_correct": value} for source, values in right.items() for value in values]
    assert cv_bench.cv_bench_aggregate_results(results) == 0.5
    assert cv_bench.cv_bench_default_aggregate_results(results) == 0.375  # ((1/2 + 1) / 2 + 0) / 2
    assert cv_bench._extract_answer_letter("cannot say") == "C"
    assert score_choice("cannot say", "C", OPTIONS).parsed is None


def test_mmvp_is_the_same_for_plain_answers(draw):
    theirs, ours = [], []
    for index in range(1, 301):
        reference = draw.choice("AB")
        answer = draw.choice(["A", "B", "(A)", "B.", "The answer is B"])
        doc = {"Index": index, "Correct Answer": f"({reference.lower()})"}
        theirs.append(mmvp.mmvp_process_results(doc, [answer])["mmvp_accuracy"])
        verdict = score_choice(answer, reference, {"A": "open", "B": "closed"})
        ours.append(sample(index, verdict, reference, {"group": str((index - 1) // 2)}))
    metrics = summary("mmvp", ours)
    assert metrics["accuracy"] / 100 == pytest.approx(mmvp.mmvp_aggregate_results(theirs))
    assert metrics["pair_accuracy"] / 100 == pytest.approx(mmvp.mmvp_aggregate_pair_results(theirs))


def test_mmvp_differs_where_nothing_is_said_about_a_or_b():
    assert mmvp._extract_answer_letter("a door") == "A"
    assert score_choice("a door", "A", {"A": "open", "B": "closed"}).parsed is None


def test_mmstar_is_the_same_for_balanced_categories_and_else_the_mean_of_questions(draw):
    """There a category is the mean of its subcategories' means; the paper's tables are means of questions."""
    theirs, ours = {}, []
    for category, below in mmstar.eval_type_dict.items():
        for l2_category in below:
            for reference, answer in choices(draw, 40):
                doc = {"index": len(ours), "answer": reference, "category": category, "l2_category": l2_category}
                for key, result in mmstar.mmstar_process_results(doc, [answer]).items():
                    theirs.setdefault(key, []).append(result)
                verdict = score_choice(answer, reference, dict.fromkeys("ABCD", ""))
                ours.append(sample(len(ours), verdict, reference, doc))
    metrics = summary("mmstar", ours)
    for key, results in theirs.items():
        name = "accuracy" if key == "average" else f"accuracy/{key}"
        assert metrics[name] / 100 == pytest.approx(mmstar.mmstar_aggregate_results(results)), key
    uneven = [{"l2_category": "x", "score": 1.0}] * 3 + [{"l2_category": "y", "score": 0.0}]
    assert mmstar.mmstar_aggregate_results(uneven) == 0.5  # and not 3/4


def test_mmbench_is_the_same_for_plain_answers(draw):
    theirs, ours = [], []
    for base in range(150):
        category = draw.choice(["ocr", "emotion"])
        for rotation in range(draw.randint(1, 4)):
            reference = draw.choice("ABCD")
            answer = lettered(draw, draw.choice(reference * 12 + "ABCD"))
            index = base + rotation * 1_000_000
            doc = {"index": index, "question": "?", "answer": reference, "prediction": answer, "category": category}
            theirs.append({**doc, "L2-category": "x", **OPTIONS})
            details = {"group": str(base), "rotated": rotation > 0, "category": category, "l2_category": "x"}
            ours.append(sample(index, score_choice(answer, reference, OPTIONS), reference, details))
    overall, by_category, _ = MMBench_Evaluator().eval_result(theirs, "static")
    metrics = summary("mmbench_en_dev", ours)
    assert 0.2 < overall < 0.95
    assert metrics["accuracy"] / 100 == pytest.approx(overall)
    assert {name: metrics[f"accuracy/{name}"] / 100 for name in by_category} == pytest.approx(by_category)


@pytest.mark.parametrize(
    ("answer", "theirs"),
    [
        ("Cannot say", "C"),  # a capital anywhere
        ("A bird", "A"),  # an article
        ("A or B", "A"),  # the first one
        ("not B", "B"),
    ],
)
def test_the_common_letter_parser_guesses_where_ours_does_not(answer, theirs):
    assert extract_mcq_answer(answer, choices=list(OPTIONS)) == theirs
    assert score_choice(answer, theirs, OPTIONS).parsed is None


def test_the_common_letter_parser_does_not_know_options_words():
    assert extract_mcq_answer("dog", choices=list(OPTIONS)) == ""
    assert score_choice("dog", "B", OPTIONS).parsed == "B"

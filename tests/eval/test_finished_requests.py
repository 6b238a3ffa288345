import pytest

from fusionvl.eval.finished_requests import FinishedRequest, FinishedRequests


def finished(key, text="yes\n\u2028ü"):
    return FinishedRequest(key, "pope", 3, text, 2)


def test_what_any_process_finished_is_found_by_all_later_ones(tmp_path):
    for rank, key in enumerate("ab"):
        FinishedRequests(tmp_path / "new", rank).append([finished(key)])
    for rank in (0, 7):
        found = FinishedRequests(tmp_path / "new", rank)
        assert (found.get("a"), found.get("b"), found.get("c")) == (finished("a"), finished("b"), None)


def test_half_a_line_of_a_killed_run_is_cut_off_by_its_owner_and_left_out_by_others(tmp_path):
    FinishedRequests(tmp_path, 0).append([finished("a"), finished("b")])
    path = tmp_path / "finished-0.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert FinishedRequests(tmp_path, 1).get("b") is None
    assert path.read_bytes() == whole[:-9]
    again = FinishedRequests(tmp_path, 0)
    assert again.get("a") == finished("a")
    assert again.get("b") is None
    again.append([finished("b")])
    assert path.read_bytes() == whole


def test_a_line_that_is_something_else_is_named(tmp_path):
    for wrong in ("{}", "[1", '{"key": "a", "more": 1}'):
        (tmp_path / "finished-3.jsonl").write_text(wrong + "\n")
        with pytest.raises(ValueError, match=r"finished-3\.jsonl, line 1: not a finished request"):
            FinishedRequests(tmp_path, 0)

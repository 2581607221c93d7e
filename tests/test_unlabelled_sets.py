"""Queries without judgements, clusters, and sets that have no judgement at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.data.sets import GIVEN, SENTENCES, UNJUDGED, RetrievalSet
from toolkit.errors import DataError
from toolkit.experiment.queries import sample_queries

JUDGED = RetrievalSet("s", ["d0", "d1"], ["lift", "drag"], ["q0", "q1"], ["up?", "back?"], {"q0": {"d0": 1}})


def test_the_hash_of_a_judged_set_is_that_of_earlier_versions():
    assert JUDGED.content_hash == JUDGED.searched_hash == "817b200706c661fa"


def test_everything_that_is_added_is_in_the_hash_and_leaves_the_judged_part_alone():
    more = replace(JUDGED, unlabelled_ids=["u0"], unlabelled=["why?"])
    sets = [
        JUDGED,
        more,
        replace(more, unlabelled=["how?"]),
        replace(more, unlabelled_ids=["u1"]),
        replace(more, unlabelled_source=SENTENCES),
        replace(JUDGED, clusters={"q0": "a"}),
        replace(JUDGED, clusters={"q0": "b"}),
        replace(more, clusters={"u0": "b"}),
    ]
    assert len({one.content_hash for one in sets}) == len(sets)
    assert {one.searched_hash for one in sets} == {JUDGED.content_hash}
    assert more.unlabelled_source == GIVEN
    # A mapping for a larger set says nothing of this one.
    assert replace(JUDGED, clusters={"elsewhere": "a"}).content_hash == JUDGED.content_hash


def test_a_set_without_judgements_has_its_queries_in_queries():
    bare = RetrievalSet("s", ["d0"], ["lift"], ["q0"], ["up?"], {})
    assert (bare.labelled, JUDGED.labelled) == (False, True)
    assert bare.unlabelled_source == GIVEN
    assert "judgements=0" in repr(bare)
    with pytest.raises(DataError, match="none in `unlabelled`"):
        replace(bare, unlabelled_ids=["u0"], unlabelled=["why?"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"unlabelled_ids": ["u0"]}, "1 ids for 0 queries"),
        ({"unlabelled_ids": ["q0"], "unlabelled": ["why?"]}, "query id 'q0' stands more than once"),
        (
            {"unlabelled_ids": ["u"], "unlabelled": ["why?"], "unlabelled_source": "a log"},
            "'a log' is not one",
        ),
        ({"unlabelled_source": UNJUDGED}, "is not one of: ''"),
    ],
)
def test_what_does_not_fit_is_said(more, message):
    with pytest.raises(DataError, match=message):
        replace(JUDGED, **more)


def test_a_sample_keeps_clusters_and_unlabelled_queries():
    more = replace(JUDGED, unlabelled_ids=["u0"], unlabelled=["why?"], clusters={"q0": "a", "q1": "b"})
    qrels = {query_id: {"d0": 1} for query_id in ("q0", "q1", "q2")}
    whole = replace(more, query_ids=list(qrels), queries=["up?", "back?", "down?"], qrels=qrels)
    drawn = sample_queries(whole, 2, seed=0)
    assert len(drawn.query_ids) == 2
    assert (drawn.unlabelled, drawn.clusters) == (whole.unlabelled, whole.clusters)

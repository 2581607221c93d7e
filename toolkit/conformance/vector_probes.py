"""Probes of the vectors: which text each belongs to, and whether company, repetition or length change it."""

from __future__ import annotations

import numpy as np

from toolkit.conformance.subject import (
    NORM_TOLERANCE,
    SAME_COSINE,
    TEXTS,
    Subject,
    Verdict,
    cosines,
    fail,
    ok,
    skipped,
    warn,
)
from toolkit.vectors import normalize

_LENGTHS_WORDS = (60, 120, 240, 480, 960)
_LONG_WORDS = (1920, 3840, 7680)  # has brought a server down
_ODD_TEXTS = (
    "naïve café — “quotes”, ½ and €",
    "向量检索需要多少维度?",
    "👩‍👩‍👧‍👦 family 🇺🇳",
    "tab\tnewline\nbell\x07 zero\x00 end",
    "\u202eright to left\u202c \ufeff zero\u200bwidth",
)


def count(subject: Subject) -> Verdict:
    """As many vectors as texts."""
    answer = subject.server.ask(list(TEXTS))
    codes = {finding.code for finding in answer.reply.findings} if answer.reply else set()
    if "count" in codes:
        return fail(answer.why)
    if answer.status != 200:
        return fail(f"a request of {len(TEXTS)} texts was refused ({answer.why})")
    return ok(f"{len(TEXTS)} vectors for {len(TEXTS)} texts")


def order(subject: Subject) -> Verdict:
    """Each vector of a batch is that of the text its index names."""
    answer = subject.server.ask(list(TEXTS))
    codes = {finding.code: finding for finding in answer.reply.findings} if answer.reply else {}
    if "index" in codes:
        return skipped(answer.why) if "count" in codes else fail(answer.why)
    if answer.rows is None or answer.rows.shape[1] != subject.full_dim:
        return skipped(f"no batch to compare ({answer.why or 'another length'})")
    likeness = normalize(answer.rows) @ normalize(subject.alone()).T
    wrong = [i for i, nearest in enumerate(likeness.argmax(axis=1)) if nearest != i]
    if wrong:
        return fail(f"{len(wrong)} of {len(TEXTS)} vectors belong to another text than their index says")
    if "order" in codes:
        return warn(codes["order"].text)
    return ok("vectors come in the order of the texts, numbered from 0")


def norm(subject: Subject) -> Verdict:
    """Full vectors have norm 1."""
    norms = np.linalg.norm(subject.alone().astype(np.float64), axis=1)
    if np.abs(norms - 1).max() > NORM_TOLERANCE:
        return warn(f"norms of {norms.min():.3g} to {norms.max():.3g}: an inner product is no cosine")
    return ok(f"norms of {norms.min():.4f} to {norms.max():.4f}")


def determinism(subject: Subject) -> Verdict:
    """The same text twice."""
    lowest = float(cosines(subject.server.alone(TEXTS[:2]), subject.alone()[:2]).min())
    if lowest < SAME_COSINE:
        return fail(f"a text asked for twice has vectors with a cosine of {lowest:.4f}")
    return ok(f"cosine {lowest:.6f}, largest difference {subject.noise:.1e}")


def batch_invariance(subject: Subject) -> Verdict:
    """A text's vector does not depend on what else is in the request."""
    answer = subject.server.ask(list(TEXTS))
    if answer.rows is None or answer.rows.shape[1] != subject.full_dim:
        return skipped(f"no batch to compare ({answer.why or 'another length'})")
    likeness = normalize(answer.rows) @ normalize(subject.alone()).T
    # Each with the text it is nearest to: which that is is for `order` to say.
    lowest = float(likeness.max(axis=1).min())
    if lowest < SAME_COSINE:
        return fail(f"in a batch a text's vector has a cosine of {lowest:.4f} with the one it has alone")
    return ok(f"cosine of at least {lowest:.6f} with the text alone")


def concurrency(subject: Subject) -> Verdict:
    """Right vectors for everybody while many ask at once."""
    texts = tuple(f"{text} Number {i}." for i in range(4) for text in TEXTS)
    alone = subject.alone(texts)
    answers = subject.server.at_once(texts * 2, clients=16)
    lost = [answer for answer in answers if answer.rows is None or answer.rows.shape[1] != alone.shape[1]]
    if lost:
        return fail(f"{len(lost)} of {len(answers)} requests at once got no usable vector ({lost[0].why})")
    rows = np.stack([answer.rows[0] for answer in answers])
    same = cosines(rows, np.concatenate([alone, alone]))
    wrong = int((same < SAME_COSINE).sum())
    if wrong:
        return fail(
            f"{wrong} of {len(rows)} requests at once got a vector that is not their text's (lowest cosine "
            f"{same.min():.3f})"
        )
    return ok(f"{len(rows)} requests, 16 at once: cosine of at least {same.min():.6f}")


def silent_truncation(subject: Subject) -> Verdict:
    """Two long texts that differ at their ends alone have different vectors, or are refused."""
    return _read_to_the_end(subject, _LENGTHS_WORDS)


def long_texts(subject: Subject) -> Verdict:
    """The same with texts so long that a server may not survive them."""
    return _read_to_the_end(subject, _LONG_WORDS)


def _read_to_the_end(subject: Subject, lengths_words: tuple[int, ...]) -> Verdict:
    limit = 4 * subject.noise + 1e-7
    longest = 0
    for words in lengths_words:
        body = " ".join(f"word{i % 97}" for i in range(words))
        answers = [subject.server.ask([f"{body} {end}"]) for end in (TEXTS[0], TEXTS[3])]
        if any(answer.rows is None for answer in answers):
            orderly = all(answer.refused for answer in answers if answer.rows is None)
            said = f"{words} words are refused ({answers[0].why}), {longest} are read to the end"
            return ok(said) if orderly else warn(said)
        rows = np.stack([answer.rows[0] for answer in answers])
        if np.abs(rows[0] - rows[1]).max() <= limit:
            return fail(f"the end of a text of {words} words changes nothing: it is cut without a word")
        longest = words
    return ok(f"texts of {longest} words are read to the end")


def odd_texts(subject: Subject) -> Verdict:
    """Accents, other scripts, emoji and control characters."""
    refused = []
    for text in _ODD_TEXTS:
        answer = subject.server.ask([text])
        if answer.refused:
            refused.append(f"{text[:12]!r}: {answer.why}")
        elif answer.rows is None:
            return fail(f"no usable vector for {text[:30]!r}: {answer.why}")
    if refused:
        return warn(f"refuses {len(refused)} of {len(_ODD_TEXTS)} unusual texts ({refused[0]})")
    return ok(f"{len(_ODD_TEXTS)} unusual texts have finite vectors")


def empty_text(subject: Subject) -> Verdict:
    """The empty text: a vector or an orderly refusal."""
    answer = subject.server.ask([""])
    if answer.refused:
        return ok(f"refused: {answer.why}")
    if answer.rows is None:
        return fail(f"an empty text gets no orderly answer: {answer.why}")
    return ok("an empty text has a finite vector")


def reference(subject: Subject) -> Verdict:
    """The server's vectors are the local model's; if not, what would explain it."""
    local = subject.reference
    if local is None:
        return skipped("no reference; give reference='local:..', the same model here")
    if local.space.full_dim != subject.full_dim:
        return fail(
            f"vectors of {subject.full_dim} numbers where {local.space.model} has {local.space.full_dim}"
        )
    space, rows = local.space, subject.alone()

    def lowest(texts: list[str], against: np.ndarray = rows) -> float:
        return float(cosines(against, local.encode(texts)).min())

    documents = [space.render(text, "document") for text in TEXTS]
    bare = lowest(documents)
    if bare >= SAME_COSINE:
        return ok(f"cosine of at least {bare:.6f} with {space.model} on this machine")
    queries = [space.render(text, "query") for text in TEXTS]
    if queries != documents and lowest(queries) >= SAME_COSINE:
        return fail("the server puts the query prompt before every text, documents too")
    if documents != list(TEXTS) and lowest(list(TEXTS)) >= SAME_COSINE:
        return warn("the server adds no prompt of its own: the client must put it before each text")
    ended = subject.server.ask([f"{text}<|endoftext|>" for text in documents])
    if ended.rows is not None and lowest(documents, ended.rows) >= SAME_COSINE:
        return fail("the server does not append the end token: with it in the text its vectors are right")
    return fail(
        f"cosine of only {bare:.4f} with {space.model} on this machine: other weights, pooling, quantization or prompt"
    )


def huge(subject: Subject) -> Verdict:
    """A text of a million characters and a request of 2,049 texts, and whether the server still answers after."""
    seen = []
    for what, inputs in (
        ("a text of 1 MB", ["word " * 200_000]),
        ("2,049 texts", ["a short text"] * 2_049),
    ):
        answer = subject.server.ask(inputs)
        seen.append(f"{what}: {'vectors' if answer.rows is not None else answer.why[:100]}")
        if subject.server.ask([TEXTS[0]]).rows is None:
            return fail(f"{what} took the server down: it no longer answers")
        if not answer.refused and answer.rows is None:
            return warn("; ".join(seen))
    return ok("; ".join(seen))

"""Probes of the API: dimensions, encodings, token ids, usage, errors, and what it says of itself."""

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
from toolkit.embedding.tokens import token_counter
from toolkit.wire.client_replies import error_dialect

# Words or parts of words in most vocabularies.
_ANY_IDS = (1000, 2000, 3000, 4000, 5000, 7000, 10_000, 15_000, 20_000, 25_000)
_NOT_HONOURED = "dimensions are not honoured"


def dimensions(subject: Subject) -> Verdict:
    """The length asked for is the length that comes."""
    came = {}
    for dim in subject.shorter:
        answer = subject.server.ask([TEXTS[0]], dimensions=dim)
        if answer.rows is None:
            subject.dimension_honoured = False
            if answer.refused:
                return warn(f"dimensions={dim} is refused ({answer.why}): cut locally instead")
            return fail(f"dimensions={dim} gets no usable vector ({answer.why})")
        came[dim] = answer.rows.shape[1]
    subject.dimension_honoured = bool(came) and all(dim == length for dim, length in came.items())
    if not subject.dimension_honoured:
        return fail(
            f"asked for {', '.join(map(str, came))} numbers, got {', '.join(map(str, came.values()))}"
        )
    return ok(f"honoured at {', '.join(map(str, came))} of {subject.full_dim}")


def _cut(subject: Subject) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows at half the dimension, and the same numbers of the full vectors."""
    dim = subject.full_dim // 2
    answer = subject.server.ask([TEXTS[0]], dimensions=dim)
    if answer.rows is None or answer.rows.shape[1] != dim:
        return None
    return answer.rows, subject.alone()[:1, :dim]


def dimension_norm(subject: Subject) -> Verdict:
    """Cut vectors are normalized again."""
    cut = _cut(subject) if subject.dimension_honoured else None
    if cut is None:
        return skipped(_NOT_HONOURED)
    length = float(np.linalg.norm(cut[0].astype(np.float64)))
    full_length = float(np.linalg.norm(subject.alone()[0].astype(np.float64)))
    if abs(full_length - 1) > NORM_TOLERANCE:
        return skipped("full vectors have another norm than 1 too")
    if abs(length - 1) > NORM_TOLERANCE:
        return fail(f"a vector cut to {cut[0].shape[1]} has norm {length:.3f}: cut, and not normalized again")
    return ok(f"norm {length:.4f} at {cut[0].shape[1]}")


def dimension_prefix(subject: Subject) -> Verdict:
    """A cut vector points where the prefix of the full one points."""
    cut = _cut(subject) if subject.dimension_honoured else None
    if cut is None:
        return skipped(_NOT_HONOURED)
    same = float(cosines(*cut).min())
    if same < SAME_COSINE:
        return fail(f"cosine of {same:.4f} with the prefix of the full vector")
    return ok(f"cosine of {same:.6f} with the prefix of the full vector")


def dimension_bounds(subject: Subject) -> Verdict:
    """0, -1 and one more than there are, are refused."""
    if not subject.dimension_honoured:
        return skipped(_NOT_HONOURED)
    taken, broken = [], []
    for dim in (0, -1, subject.full_dim + 1):
        answer = subject.server.ask([TEXTS[0]], dimensions=dim)
        if answer.status == 200:
            length = None if answer.rows is None else answer.rows.shape[1]
            taken.append(f"dimensions={dim} is answered with {length} numbers")
        elif not answer.refused:
            broken.append(f"dimensions={dim}: {answer.why}")
    if taken:
        return fail("; ".join(taken))
    return warn("; ".join(broken)) if broken else ok(f"0, -1 and {subject.full_dim + 1} are refused")


def base64_encoding(subject: Subject) -> Verdict:
    """base64 holds the same float32 numbers as JSON; the openai SDK asks for it unless told otherwise."""
    if not subject.server.address.shape.encodes_base64:
        return skipped(f"the {subject.server.address.shape.name} API has no base64")
    answer = subject.server.ask([TEXTS[0]], encoding="base64")
    if answer.refused:
        return fail(f"base64 is refused ({answer.why}); the openai SDK asks for it by default")
    if answer.rows is None:
        return fail(f"no usable vector in base64: {answer.why}")
    plain = subject.alone()[:1]
    if answer.rows.shape != plain.shape:
        return fail(
            f"base64 holds {answer.rows.shape[1]} float32 numbers where JSON has {plain.shape[1]}: another type of "
            "numbers was packed"
        )
    if cosines(answer.rows, plain).min() < SAME_COSINE:
        return fail("base64 holds other numbers than JSON: another type or byte order was packed")
    if answer.reply.encoding != "base64":
        return warn("base64 was asked for and numbers came")
    return ok("the same vector in base64 and in numbers")


def token_ids(subject: Subject) -> Verdict:
    """A list of token ids is one input; clients such as langchain send them."""
    if not subject.server.address.shape.takes_token_ids:
        return skipped(f"the {subject.server.address.shape.name} API takes no token ids")
    counter = token_counter(subject.reference)
    # Without the model's tokenizer any ids must do; a server that looks for their text may refuse some that have none.
    tried = [counter.ids_of(TEXTS[0])] if counter else [[101, 102, 103], *([number] for number in _ANY_IDS)]
    for ids in tried:
        answer = subject.server.ask(ids)
        if not answer.refused:
            break
    if answer.refused:
        return warn(f"token ids are refused ({answer.why}); clients must send texts")
    what = f"{len(ids)} token id{'s' * (len(ids) > 1)}"
    if answer.rows is None:
        return fail(f"{what} of one text get no usable answer: {answer.why}")
    as_text = subject.server.ask([str(ids)])
    if as_text.rows is not None and cosines(answer.rows, as_text.rows)[0] > 1 - 1e-6:
        return fail("token ids are embedded as the text of their digits")
    if counter is None:
        return ok(f"{what} of one input have one vector")
    if answer.rows.shape[1] != subject.full_dim or cosines(answer.rows, subject.alone()[:1])[0] < SAME_COSINE:
        return fail("the token ids of a text have another vector than the text")
    return ok(f"the {what} of a text have its vector")


def usage(subject: Subject) -> Verdict:
    """Tokens are counted: more for more text, and those of a batch are the sum of its texts'."""
    if not subject.server.address.shape.counts_tokens:
        return skipped(f"the {subject.server.address.shape.name} API tells no tokens in its answers")
    short, long = subject.server.ask([TEXTS[2]]), subject.server.ask([TEXTS[1]])
    both = subject.server.ask([TEXTS[2], TEXTS[1]])
    counts = [answer.reply.tokens if answer.reply else None for answer in (short, long, both)]
    if None in counts:
        return warn("no count of tokens in the answer")
    if not 0 < counts[0] < counts[1]:
        return fail(f"{counts[0]} tokens for 2 words and {counts[1]} for 18: not the text's tokens")
    if abs(counts[2] - counts[0] - counts[1]) > 2:
        return warn(f"{counts[0]} + {counts[1]} tokens alone, {counts[2]} together: padding is counted")
    return ok(f"{counts[0]} + {counts[1]} = {counts[2]} tokens")


def errors(subject: Subject) -> Verdict:
    """What cannot be answered is refused with 4xx and a sentence."""
    server = subject.server
    cases = {
        "a body that is not JSON": server.send(None, raw=b'{"input": '),
        "a request without input": server.send({"model": server.model}),
        "an input that is a number": server.send(
            {"model": server.model, "input": 7, "inputs": 7, "texts": 7}
        ),
    }
    for what, answer in cases.items():
        if answer.status == 200:
            return fail(f"{what} is answered with 200")
        if not answer.refused:
            return warn(f"{what}: {answer.why}")
    dialects = {error_dialect(answer.body) for answer in cases.values()}
    if None in dialects:
        return warn("an error is not JSON in a known form: clients cannot show why")
    return ok(f"refused with 4xx ({', '.join(sorted(map(str, dialects)))} form)")


def models(subject: Subject) -> Verdict:
    """The model is among those the server lists."""
    listed = subject.server.models()
    if not listed:
        return warn("no list of models under /models")
    if subject.server.model not in listed:
        return warn(f"lists {', '.join(sorted(listed)[:5])}, not {subject.server.model}")
    return ok(f"lists {subject.server.model}")


def health(subject: Subject) -> Verdict:
    """A load balancer can ask whether it is up."""
    status, _ = subject.server.get(f"{subject.server.address.root}/health")
    return ok("/health answers 200") if status == 200 else warn(f"/health answers {status or 'nothing'}")

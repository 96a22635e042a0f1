"""CTC and position decoders against brute force, each other, and fast-ctc-decode."""
from itertools import groupby, product

import numpy as np
import pytest
from captcha_fastai.ctc import ctc_log_prob
from captcha_fastai.decode import beam_decode, greedy_decode, path_beam_decode
from captcha_fastai.positions import position_decode, position_greedy, position_log_prob
from captcha_fastai.vocab import Vocab

ENGINES = ['numpy', 'numba']


def rand(rng, *shape, scale=2., holes=0.):
    "Random log-probabilities; a share `holes` of the classes is impossible, but at least one a step is not."
    x = rng.normal(0, scale, shape)
    hole = rng.random(shape) < holes
    np.put_along_axis(hole, rng.integers(0, shape[-1], (*shape[:-1], 1)), False, -1)
    x[hole] = -np.inf
    return x - np.logaddexp.reduce(x, -1, keepdims=True)


def brute_ctc(lp, blank):
    "All texts of one sequence (T, C) with their log-probabilities, by listing every path."
    T, C = lp.shape
    p = {}
    for path in product(range(C), repeat=T):
        text = tuple(c for c, _ in groupby(path) if c != blank)
        p[text] = p.get(text, 0) + np.exp(sum(lp[t, c] for t, c in enumerate(path)))
    return {t: np.log(v) for t, v in p.items() if v > 0}


def brute_positions(lp, blank):
    T, C = lp.shape
    out = {}
    for n in range(T+1):
        for text in product([c for c in range(C) if c != blank], repeat=n):
            s = sum(lp[i, c] for i, c in enumerate(text)) + (lp[n, blank] if n < T else 0)
            if s > -np.inf: out[text] = s
    return out


def keeps(text, length=None, min_length=None, max_length=None, sets=None):
    "Does `text` keep the rules? `sets`: ids allowed at each position, or one set for all."
    if length is not None and len(text) != length: return False
    if len(text) < (min_length or 0) or (max_length is not None and len(text) > max_length): return False
    if sets is None: return True
    return all(c in (sets if isinstance(sets, set) else sets[i]) for i, c in enumerate(text))


def constraints(rng, T, C, blank):
    "Options for the decoders and the same for `keeps`, of every kind."
    ids = [c for c in range(C) if c != blank]
    vocab = Vocab('abcdef'[:C-1], blank=blank) if C > 1 else None
    some = lambda: [c for c in ids if rng.random() < .6]
    string = lambda o: ''.join(vocab.itos[c] for c in o)
    lo, hi = sorted(rng.integers(0, T+1, 2).tolist())
    kinds = [{}, dict(length=int(rng.integers(0, T+1))), dict(min_length=lo), dict(max_length=hi), dict(min_length=lo, max_length=hi)]
    out = [(k, k) for k in kinds]
    if vocab is None: return out
    for k in kinds:
        o = some()
        out.append((dict(k, allowed=string(o), vocab=vocab), dict(k, sets=set(o))))
    L = int(rng.integers(0, T+1))
    o = [some() for _ in range(L)]
    out.append((dict(length=L, allowed=[string(s) for s in o], vocab=vocab), dict(length=L, sets=o)))
    return out


def check(hyps, texts, n_best=None):
    "`hyps` are the best of `texts`, in order, with their log-probabilities; equal ones may stand in any order."
    want = sorted(texts.values(), reverse=True)[:n_best]
    assert len(hyps) == len(want)
    assert len({h.ids for h in hyps}) == len(hyps)
    np.testing.assert_allclose([h.log_prob for h in hyps], want, atol=1e-9, rtol=1e-9)
    for h in hyps: np.testing.assert_allclose(texts[h.ids], h.log_prob, atol=1e-9, rtol=1e-9)


GRID = [(T, C) for T in range(7) for C in range(1, 5)]


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('T,C', GRID)
def test_wide_beam_is_brute_force(T, C, engine):
    "A beam as wide as the space finds every text that keeps the rules, in order, with its probability."
    for seed in range(3 if C**T > 1000 else 8):
        rng = np.random.default_rng([seed, T, C])
        blank = int(rng.integers(0, C))
        lp = rand(rng, T, C, holes=[0, 0, .4][seed % 3]) if T else np.zeros((0, C))
        texts = brute_ctc(lp, blank)
        for opts, rule in constraints(rng, T, C, blank):
            left = {t: s for t, s in texts.items() if keeps(t, **rule)}
            k = max(len(left), 1)
            hyps, = beam_decode(lp[None], beam_size=max(len(texts), 1), blank=blank, n_best=k, on_impossible='empty', engine=engine, **opts)
            if left: check(hyps, left)
            else:
                assert hyps == [((), -np.inf)]
                with pytest.raises(ValueError, match='No text is possible for sequence 0'):
                    beam_decode(lp[None], blank=blank, engine=engine, **opts)

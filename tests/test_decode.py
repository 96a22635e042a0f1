"""CTC and position decoders against brute force, each other, and fast-ctc-decode."""
from itertools import groupby, product

import numpy as np
import pytest
import torch
from captcha_fastai import decode
from captcha_fastai.ctc import ctc_log_prob
from captcha_fastai.decode import beam_decode, greedy_decode, path_beam_decode
from captcha_fastai.positions import position_decode, position_greedy, position_log_prob
from captcha_fastai.rules import make_rules
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


@pytest.mark.parametrize('T,C', GRID)
def test_positions_are_brute_force(T, C):
    "The n best texts of a position head, under every constraint, are those of a full list."
    for seed in range(8):
        rng = np.random.default_rng([seed, T, C])
        blank = int(rng.integers(0, C))
        lp = rand(rng, T, C, holes=[0, 0, .4][seed % 3]) if T else np.zeros((0, C))
        texts = brute_positions(lp, blank)
        np.testing.assert_allclose(sum(np.exp(s) for s in texts.values()), 1)
        for t, s in list(texts.items())[:20]:
            ids = np.array([t + (blank,)*(seed % 2)], int)
            np.testing.assert_allclose(position_log_prob(lp[None], ids, blank), [s], atol=1e-12)
        for opts, rule in constraints(rng, T, C, blank):
            left = {t: s for t, s in texts.items() if keeps(t, **rule)}
            hyps, = position_decode(lp[None], blank=blank, n_best=5, on_impossible='empty', **opts)
            if left: check(hyps, left, 5)
            else: assert hyps == [((), -np.inf)]


def test_position_greedy():
    rng = np.random.default_rng(0)
    lp = rand(rng, 200, 4, 3)
    for y, (h,) in zip(lp, position_greedy(lp, blank=1)):
        best = y.argmax(1).tolist()
        text = tuple(best[:best.index(1)] if 1 in best else best)
        assert h.ids == text and np.isclose(h.log_prob, brute_positions(y, 1)[text])


@pytest.mark.parametrize('engine', ENGINES)
def test_greedy(engine):
    rng = np.random.default_rng(0)
    lp = rand(rng, 200, 5, 3)
    for y, (h,) in zip(lp, greedy_decode(lp, blank=2, engine=engine)):
        text = tuple(int(c) for c, _ in groupby(y.argmax(1)) if c != 2)
        assert h.ids == text and np.isclose(h.log_prob, brute_ctc(y, 2)[text])


def test_path_beam_is_exact_when_wide():
    rng = np.random.default_rng(0)
    for blank in range(3):
        y = rand(rng, 5, 3)
        hyps, = path_beam_decode(y[None], 3**5, blank, n_best=3**5, threshold=1e-30)
        check(hyps, brute_ctc(y, blank))


# Inputs as a network may give them, and worse: flat, peaked, with holes, masked with large numbers, not normalised, far below what floats hold.
def kinds(rng, N, T, C):
    yield 'flat', rand(rng, N, T, C, scale=.5)
    yield 'random', rand(rng, N, T, C)
    yield 'peaked', rand(rng, N, T, C, scale=12.)
    yield 'very peaked', rand(rng, N, T, C, scale=150.)
    yield 'holes', rand(rng, N, T, C, holes=.5)
    x = rand(rng, N, T, C)
    yield 'masked', np.where(rng.random(x.shape) < .4, -1e4, x)
    yield 'logits', x*3 + rng.normal(0, 5, (N, T, 1))
    y = rand(rng, N, T, C, scale=300.)
    y[rng.random(y.shape) < .2] = -np.inf
    yield 'extreme', y


def same(a, b):
    "Equal answers of two engines; texts whose scores tie to the last digits may change places."
    for g, h in zip(a, b):
        np.testing.assert_allclose([o.log_prob for o in g], [o.log_prob for o in h], rtol=1e-10, atol=1e-10)
        s = np.array([o.log_prob for o in g])
        for i in range(len(g)-1): # the last may tie with one outside
            if np.all(np.abs(np.delete(s, i)-s[i]) > 1e-9*max(1, abs(s[i]))): assert g[i].ids == h[i].ids


@pytest.mark.parametrize('T,C', [(9, 5), (13, 20), (40, 3), (150, 4)])
def test_engines_agree(T, C):
    rng = np.random.default_rng([T, C])
    vocab = Vocab([chr(97+i) for i in range(C-1)])
    options = [{}, dict(length=4), dict(min_length=3), dict(max_length=2), dict(allowed='ab', vocab=vocab), dict(length=3, allowed=['a', 'ab', 'b'], vocab=vocab)]
    for name, lp in kinds(rng, 24, T, C):
        for opts in options:
            for n in (1, 4): same(*(beam_decode(lp, n_best=n, on_impossible='empty', engine=e, **opts) for e in ENGINES))
        ids = rng.integers(1, C, (24, 6))
        ids[np.arange(6) >= rng.integers(0, 7, 24)[:, None]] = 0
        np.testing.assert_allclose(*(ctc_log_prob(lp, ids, engine=e) for e in ENGINES), rtol=1e-10, atol=1e-10)


def test_classes_that_are_skipped_change_nothing():
    "Few beginnings and many classes: here the kernels skip most candidates, and must still find the numpy version's beam."
    rng = np.random.default_rng(5)
    for C, size in [(70, 1), (70, 2), (70, 3), (40, 5), (30, 10)]:
        lp = rand(rng, 200, 12, C, scale=1.5)
        lp[..., rng.integers(1, C, 3)] += 2 # a few favourites, so that repeats and merges are common
        same(*(beam_decode(lp, size, n_best=size, engine=e) for e in ENGINES))


@pytest.mark.parametrize('engine', ENGINES)
def test_lookahead_finds_what_plain_search_misses(engine):
    "Strong blanks at the end would fill a beam of 10 with short texts; the right length must be found all the same."
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (20, 7, 3))
    x[..., 0] += 4
    lp = x - np.logaddexp.reduce(x, -1, keepdims=True)
    for y, (h,) in zip(lp, beam_decode(lp, length=4, engine=engine)):
        best = max((s, t) for t, s in brute_ctc(y, 0).items() if len(t) == 4)
        assert h.log_prob > best[0]-.7 # never far off,
        wide = beam_decode(y[None], 300, length=4, engine=engine)[0][0]
        assert wide.ids == best[1] # and exact with a wide beam


def test_fast_ctc_decode():
    """On a thousand sequences the beam's own best text is fast-ctc-decode's (without its pruning).
    Our answer is the best by *exact* probability, so it may be another one of the beam, and is never less probable."""
    fcd = pytest.importorskip('fast_ctc_decode')
    rng = np.random.default_rng(0)
    better = 0
    for T, C, scale in [(13, 20, 1.), (13, 20, 4.), (25, 37, 1.), (25, 37, 4.)]:
        lp = rand(rng, 250, T, C, scale=scale).astype(np.float32)
        alphabet = [chr(256+i) for i in range(C)]
        theirs = [tuple(ord(c)-256 for c in fcd.beam_search(np.exp(y), alphabet, beam_size=10, beam_cut_threshold=0.)[0]) for y in lp]
        assert own_best(lp.astype(float), 10) == theirs
        for y, t, (h,) in zip(lp, theirs, beam_decode(lp)):
            if t != h.ids: assert ctc_log_prob(y[None], [t])[0] < h.log_prob
            better += t != h.ids
    assert better > 200 # exact scores matter: on flat inputs they change more than half of the answers


def own_best(lp, size):
    "The best text of each sequence by the beam's own masses."
    N, T, C = lp.shape
    tree, zero = decode._Tree(N, C), np.zeros((N, 1))
    beam = decode._Beam(np.arange(N)[:, None], zero.astype(int), zero, zero-np.inf)
    for t in range(T): beam = decode._step(beam, tree, lp[:, t], None, make_rules(C, T), 0, size)
    ids, lens = tree.texts(beam.node[:, 0], 0)
    return [tuple(t[:n]) for t, n in zip(ids.tolist(), lens)]


class Remote(torch.Tensor):
    "A tensor that numpy can't have before it is brought to the CPU, as those of a GPU are."
    def cpu(self): return self.as_subclass(torch.Tensor)
    def numpy(self, **kwargs): raise TypeError("can't convert a remote tensor to numpy")
    def __array__(self, *args, **kwargs): return self.numpy()

def test_tensors_of_another_device():
    from captcha_fastai.losses import CaptchaCTCLoss, PositionCrossEntropyLoss
    here = torch.randn(3, 7, 5).log_softmax(-1)
    there,ids = here.clone().as_subclass(Remote),torch.tensor([[1,2],[3,0],[0,0]])
    with pytest.raises(TypeError): np.asarray(there)
    for f in (greedy_decode, beam_decode, path_beam_decode): assert f(there) == f(here)
    np.testing.assert_array_equal(ctc_log_prob(there, ids.as_subclass(Remote)), ctc_log_prob(here, ids))
    for loss in (CaptchaCTCLoss(), PositionCrossEntropyLoss()):
        assert torch.equal(loss.decodes(loss.activation(there)), loss.decodes(loss.activation(here)))
        assert torch.equal(loss.log_prob(there, ids.as_subclass(Remote)), loss.log_prob(here, ids))

"""Properties of the decoders that hold for any input (hypothesis), and of their surroundings."""
import subprocess
import sys

import numpy as np
import pytest
from captcha_fastai import ctc
from captcha_fastai.ctc import as_log_probs, ctc_log_prob, pick_engine
from captcha_fastai.decode import beam_decode, greedy_decode, path_beam_decode
from captcha_fastai.positions import position_decode, position_greedy, position_log_prob
from hypothesis import given, settings, strategies as st

from test_decode import brute_ctc, brute_positions, check

DTYPES = [np.float16, np.float32, np.float64]


@st.composite
def batches(draw, max_t=6, max_c=4, max_n=4):
    "Log-probabilities (N, T, C) of any float type, flat or peaked, with or without impossible classes; the blank may be any class."
    N, T, C = draw(st.integers(0, max_n)), draw(st.integers(0, max_t)), draw(st.integers(1, max_c))
    rng = np.random.default_rng(draw(st.integers(0, 2**32-1)))
    x = rng.normal(0, draw(st.sampled_from([.1, 1., 5., 40.])), (N, T, C))
    x[rng.random(x.shape) < draw(st.sampled_from([0., 0., .3]))] = -np.inf
    np.put_along_axis(x, rng.integers(0, C, (N, T, 1)), 0., 2)
    x -= np.logaddexp.reduce(x, -1, keepdims=True) if x.size else 0
    return x.astype(draw(st.sampled_from(DTYPES))), draw(st.integers(0, C-1))


some = settings(max_examples=120, deadline=None, derandomize=True)
engines = st.sampled_from(['numpy', 'numba'])


@some
@given(batches(max_t=12, max_c=6), engines, st.integers(1, 12), st.data())
def test_beam_properties(batch, engine, size, data):
    lp, blank = batch
    n_best = data.draw(st.integers(1, size))
    lo = data.draw(st.integers(0, 4))
    opts = data.draw(st.sampled_from([{}, dict(length=lo), dict(min_length=lo), dict(max_length=lo)]))
    out = beam_decode(lp, size, blank, n_best, on_impossible='empty', engine=engine, **opts)
    assert len(out) == len(lp)
    for y, hyps in zip(lp, out):
        s = [h.log_prob for h in hyps]
        assert 1 <= len(hyps) <= n_best
        assert s == sorted(s, reverse=True) and s[0] <= 0
        assert len({h.ids for h in hyps}) == len(hyps)
        assert all(type(h.ids) is tuple and type(h.log_prob) is float and all(type(i) is int for i in h.ids) for h in hyps)
        assert all(blank not in h.ids and len(h.ids) <= len(y) for h in hyps)
        if s[0] > -np.inf:
            for h in hyps:
                assert {'length': len(h.ids) == lo, 'min_length': len(h.ids) >= lo, 'max_length': len(h.ids) <= lo}.get(next(iter(opts), None), True)
                np.testing.assert_allclose(ctc_log_prob(y[None], np.array([h.ids], int), blank, engine), [h.log_prob], rtol=1e-12, atol=1e-12)


@some
@given(batches(max_t=10, max_c=6), engines, st.sampled_from([{}, dict(length=2), dict(max_length=3)]))
def test_batch_is_one_by_one(batch, engine, opts):
    lp, blank = batch
    whole = beam_decode(lp, blank=blank, n_best=3, on_impossible='empty', engine=engine, **opts)
    assert whole == [beam_decode(y[None], blank=blank, n_best=3, on_impossible='empty', engine=engine, **opts)[0] for y in lp]
    assert greedy_decode(lp, blank, engine) == [greedy_decode(y[None], blank, engine)[0] for y in lp]
    assert position_decode(lp, blank, 3, on_impossible='empty', **opts) == [position_decode(y[None], blank, 3, on_impossible='empty', **opts)[0] for y in lp]


@some
@given(batches(max_t=4, max_n=2), engines)
def test_as_wide_as_the_space(batch, engine):
    lp, blank = batch
    for y, hyps in zip(lp, beam_decode(lp, 10**6, blank, 10**6, on_impossible='empty', engine=engine)):
        texts = {t: min(s, 0.) for t, s in brute_ctc(y.astype(float), blank).items()}
        if lp.dtype == np.float16: # its rows don't quite sum to 1: compare the sets alone
            assert {h.ids for h in hyps} == set(texts)
        else: check([h._replace(log_prob=min(h.log_prob, 0.)) for h in hyps], texts)


@some
@given(batches())
def test_position_properties(batch):
    lp, blank = batch
    for y, hyps, greedy in zip(lp, position_decode(lp, blank, 7, on_impossible='empty'), position_greedy(lp, blank)):
        s = [h.log_prob for h in hyps]
        assert s == sorted(s, reverse=True) and s[0] <= 0 and len({h.ids for h in hyps}) == len(hyps)
        assert greedy[0].log_prob <= s[0]
        assert len(hyps) == min(7, len(brute_positions(y.astype(float), blank)))


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32', 'float64'])
def test_tensors(dtype):
    torch = pytest.importorskip('torch')
    x = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1).to(getattr(torch, dtype)).requires_grad_()
    a = x.detach().double().numpy()
    ids = torch.tensor([[1, 2], [3, 0], [0, 0]])
    assert beam_decode(x, n_best=3) == beam_decode(a, n_best=3)
    assert greedy_decode(x) == greedy_decode(a) and path_beam_decode(x) == path_beam_decode(a)
    assert position_decode(x) == position_decode(a)
    np.testing.assert_array_equal(ctc_log_prob(x, ids), ctc_log_prob(a, ids.numpy()))
    np.testing.assert_array_equal(position_log_prob(x, ids), position_log_prob(a, ids.numpy()))


def test_other_layouts():
    "Arrays that lie in memory in another way, or may not be written to, are read alike and left as they are."
    x = np.log(np.random.default_rng(0).dirichlet(np.ones(5), (4, 6)))
    want = beam_decode(x, n_best=3)
    frozen = x.copy()
    frozen.setflags(write=False)
    for y in (np.asfortranarray(x), frozen, np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2), np.repeat(x, 2, 0)[::2]):
        before = y.copy()
        assert beam_decode(y, n_best=3) == want
        np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize('f', [greedy_decode, beam_decode, path_beam_decode, position_decode, position_greedy])
def test_wrong_inputs(f):
    x = np.full((2, 3, 4), -1.)
    x[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match='hold nan .first in sequence 1, step 2, class 3.'): f(x)
    with pytest.raises(ValueError, match=r'log_probs\[None\]'): f(x[0])
    with pytest.raises(TypeError, match='must be floats'): f(np.zeros((1, 2, 3), int))
    with pytest.raises(ValueError, match='blank=4 is not one of the 4 classes'): f(np.zeros((1, 2, 4)), blank=4)


def test_lower_layer_imports_little():
    "Reading needs neither torch nor fastai, and numba only when it decodes."
    code = ("import sys; import captcha_fastai.kernels, captcha_fastai.decode, captcha_fastai.positions as p; "
            "print([m for m in ('torch', 'fastai', 'numba', 'scipy', 'matplotlib') if m in sys.modules])")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_without_numba(monkeypatch):
    from captcha_fastai import kernels
    x = np.log(np.random.default_rng(0).dirichlet(np.ones(5), (4, 6)))
    want = beam_decode(x, engine='numpy')
    monkeypatch.setitem(sys.modules, 'numba', None)
    monkeypatch.setattr(kernels, 'load', kernels.load.__wrapped__)
    ctc._kernels.cache_clear()
    try:
        assert pick_engine() is None and beam_decode(x) == want
        with pytest.raises(ImportError, match='needs numba'): beam_decode(x, engine='numba')
    finally: ctc._kernels.cache_clear()


def test_engine_by_environment(monkeypatch):
    monkeypatch.setenv('CAPTCHA_FASTAI_ENGINE', 'numpy')
    assert pick_engine() is None
    monkeypatch.setenv('CAPTCHA_FASTAI_ENGINE', 'torch')
    with pytest.raises(ValueError, match="no engine 'torch'"): pick_engine()


@pytest.mark.parametrize('threads', ['1', '3'])
def test_threads_change_nothing(monkeypatch, threads):
    monkeypatch.setenv('OMP_NUM_THREADS', threads)
    x = as_log_probs(np.log(np.random.default_rng(0).dirichlet(np.ones(30), (500, 20))))
    assert beam_decode(x, engine='numba') == [beam_decode(y[None], engine='numba')[0] for y in x]


@pytest.mark.parametrize('engine', ['numpy', 'numba'])
def test_more_than_half_needs_no_beam(engine):
    "A greedy text with more than half of all probability that keeps the rules needs no more than a beam of 1, and nothing is taken for such a text that isn't the best."
    rng = np.random.default_rng(0)
    sure = 0
    for scale in (1., 3., 6.):
        x = rng.normal(0, scale, (60, 5, 3)) + rng.normal(0, 9, (60, 1, 1)) # far from normalised: the half is of all there is
        for y, (h,), (short,) in zip(x, beam_decode(x, 1, engine=engine), beam_decode(x, 1, max_length=2, engine=engine)):
            texts = brute_ctc(y, 0)
            total = np.logaddexp.reduce(list(texts.values()))
            best = max(texts, key=texts.get)
            if texts[best] > total-np.log(2)+1e-6 and best == greedy_decode(y[None])[0][0].ids:
                sure += 1
                assert h.ids == best
                if len(best) <= 2: assert short.ids == best
            np.testing.assert_allclose(h.log_prob if abs(h.log_prob) > 1e-2 else texts[h.ids], texts[h.ids], atol=1e-9)
            assert len(short.ids) <= 2
    assert 40 < sure < 160

"""Sequences per second of CTC decoders, side by side in one run.

    python benchmarks/decode.py [--out FILE] [--rounds 7] [--slice 0.15] [--quick] [--resume]

Every decoder gets the same log-probabilities and a beam of 10. The decoders take turns, round after round, so that a busy machine
slows all of them; what counts is the ratio within a round, and its median over the rounds. How many processors each one got is noted: where ours gets
one and not two, because others use the machine, the ratios are those of one processor against one. One-sequence decoders are called in a loop, as their users do.
Decoders that can't be imported are skipped, with the reason in the results. The file is written anew after each cell (through a temporary file),
and --resume goes on where an earlier run of the same commit and seed stopped.
"""
import argparse, os, sys, time
from pathlib import Path
from statistics import median

import numpy as np
from captcha_fastai.ctc import ctc_log_prob
from captcha_fastai.decode import _path_sums, beam_decode
from captcha_fastai.kernels import n_threads
from common import load_json, results, save_json, where

SIZES, KINDS, BATCHES = [(13, 20), (25, 37), (50, 63)], ['random', 'peaked'], [1, 64, 512]
BEAM, SEED = 10, 0
OURS = 'captcha_fastai (numba)'


def inputs(kind, n, T, C, seed=SEED):
    "Log-probabilities (n, T, C), float32: the log-softmax of normal numbers, or of what a trained head gives: a clear path, and on average one step that has a close rival."
    rng = np.random.default_rng([seed, T, C, KINDS.index(kind)])
    x = rng.normal(0, 1, (n, T, C))
    if kind == 'peaked':
        path = np.where(rng.random((n, T)) < .55, 0, rng.integers(1, C, (n, T)))
        rival = np.where(rng.random((n, T)) < .5, 0, rng.integers(1, C, (n, T)))
        for best, gain in [(path, 11.), (rival, np.where(rng.random((n, T)) < 1/T, 10., 0.))]:
            np.put_along_axis(x, best[..., None], np.take_along_axis(x, best[..., None], 2) + np.broadcast_to(gain, (n, T))[..., None], 2)
    return (x - np.logaddexp.reduce(x, -1, keepdims=True)).astype(np.float32)


alphabet = lambda C: [chr(0x4e00+i) for i in range(C)] # no spaces, which some decoders treat in their own way
ids_of = lambda text: tuple(ord(c)-0x4e00 for c in text)


# A contestant: a function of C that gives a function from log-probabilities (N, T, C) to a list of texts (tuples of ids).

def ours(engine): return lambda C: lambda lp: [h[0].ids for h in beam_decode(lp, BEAM, engine=engine)]

def reference(C): return lambda lp: [_path_sums(y, BEAM, 0, np.log(.01))[0][0] for y in lp]

def fast_ctc(cut):
    def make(C):
        from fast_ctc_decode import beam_search
        chars = alphabet(C)
        return lambda lp: [ids_of(beam_search(p, chars, beam_size=BEAM, beam_cut_threshold=cut)[0]) for p in np.exp(lp)]
    return make

def pyctc(C):
    import logging
    logging.disable(logging.WARNING)
    from pyctcdecode import build_ctcdecoder
    d = build_ctcdecoder(['']+alphabet(C)[1:])
    return lambda lp: [ids_of(d.decode(y, beam_width=BEAM)) for y in lp]

def torchaudio_ctc(C):
    import torch
    from torchaudio.models.decoder import ctc_decoder
    d = ctc_decoder(lexicon=None, tokens=alphabet(C), beam_size=BEAM, blank_token=alphabet(C)[0], sil_token=alphabet(C)[0], log_add=True, beam_threshold=1e9)
    return lambda lp: [tuple(i for i in h[0].tokens.tolist() if i) for h in d(torch.from_numpy(lp))]

CONTESTANTS = {OURS: ours('numba'), 'captcha_fastai (numpy)': ours('numpy'), 'fast-ctc-decode': fast_ctc(0.), 'fast-ctc-decode, cut 0.01': fast_ctc(.01),
               'reference search': reference, 'pyctcdecode': pyctc, 'torchaudio': torchaudio_ctc}


def available():
    "The contestants that work here, and the reasons why others don't."
    good, skipped = {}, {}
    for name, make in CONTESTANTS.items():
        try: make(5)(inputs('random', 2, 4, 5))
        except Exception as e: skipped[name] = f'{type(e).__name__}: {e}'.splitlines()[0]
        else: good[name] = make
    return good, skipped


def speed(f, batches, seconds):
    "Sequences per second of `f`, called on one batch after the other for at least `seconds`, and the number of processors that it got meanwhile."
    n, start, cpu = 0, time.perf_counter(), time.process_time()
    while True:
        b = batches[n % len(batches)]
        f(b)
        n += 1
        if (t := time.perf_counter()-start) >= seconds: return n*len(b)/t, (time.process_time()-cpu)/t


def agreement(lp, texts, names):
    "How often each contestant's text is ours, and where it isn't, how often each is the more probable one."
    score = lambda ts: ctc_log_prob(lp, np.array([t + (0,)*(lp.shape[1]-len(t)) for t in ts]))
    mine, out = score(texts[OURS]), {}
    for name in names:
        other = score(texts[name])
        same = np.array([a == b for a, b in zip(texts[OURS], texts[name])])
        out[name] = dict(sequences=len(same), same_text=int(same.sum()), ours_more_probable=int((~same & (mine >= other)).sum()), theirs_more_probable=int((~same & (mine < other)).sum()))
    return out


def cell(contestants, kind, T, C, batch, rounds, seconds):
    lp = inputs(kind, 512, T, C)
    batches = {name: [lp[i:i+batch] for i in range(0, 512, batch)] for name in contestants}
    fs = {name: make(C) for name, make in contestants.items()}
    slow = {'reference search', 'pyctcdecode', 'fast-ctc-decode', 'fast-ctc-decode, cut 0.01'} # one by one: a part of the batch tells their speed
    for name in slow & fs.keys(): batches[name] = [b[:32] for b in batches[name]]
    for name, f in fs.items(): f(batches[name][0])
    rates, cores = {name: [] for name in fs}, {name: [] for name in fs}
    for _ in range(rounds):
        for name, f in fs.items():
            r, c = speed(f, batches[name], seconds)
            rates[name].append(r); cores[name].append(c)
    ratio = lambda name: [round(a/b, 2) for a, b in zip(rates[OURS], rates[name])]
    out = dict(kind=kind, T=T, C=C, batch=batch, per_second={n: round(median(r)) for n, r in rates.items()},
               processors={n: round(median(c), 2) for n, c in cores.items()},
               ratio={n: dict(median=round(median(ratio(n)), 2), lowest=min(ratio(n)), highest=max(ratio(n))) for n in fs if n != OURS})
    if batch == 512:
        part = lp[:128]
        out['agreement'] = agreement(part, {n: f(part) for n, f in fs.items()}, [n for n in fs if n != OURS])
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--out', type=Path, default=results/'decode.json', help='where to write the results')
    ap.add_argument('--rounds', type=int, default=7, help='how often the decoders take turns in each cell')
    ap.add_argument('--slice', type=float, default=.15, help='seconds for each decoder and turn, at least')
    ap.add_argument('--quick', action='store_true', help='the smallest size, one batch size, two short rounds: does it run?')
    ap.add_argument('--resume', action='store_true', help='keep the cells of an earlier run of this commit and seed')
    a = ap.parse_args()
    if a.quick: a.rounds, a.slice = 2, .02
    contestants, skipped = available()
    if OURS not in contestants: sys.exit(f'The benchmark measures the numba kernels, which do not work here: {skipped[OURS]}')
    result = dict(what='sequences per second of CTC decoders; ratio: ours / theirs within a round', beam=BEAM, seed=SEED, rounds=a.rounds, slice_seconds=a.slice,
                  threads=n_threads(), load_average=os.getloadavg() if hasattr(os, 'getloadavg') else None, **where('numpy', 'numba', 'scipy', 'fast-ctc-decode', 'pyctcdecode', 'torchaudio', 'flashlight-text'), skipped=skipped, cells=[])
    if a.resume and (old := load_json(a.out)):
        if all(old.get(k) == result[k] for k in ('commit', 'seed', 'beam', 'rounds', 'slice_seconds')): result['cells'] = old['cells']
    done = {(c['kind'], c['T'], c['C'], c['batch']) for c in result['cells']}
    for T, C in SIZES[:1] if a.quick else SIZES:
        for kind in KINDS:
            for batch in BATCHES[-1:] if a.quick else BATCHES:
                if (kind, T, C, batch) in done: continue
                c = cell(contestants, kind, T, C, batch, a.rounds, a.slice)
                result['cells'].append(c)
                save_json(a.out, result)
                print(f'{kind:6} T={T} C={C} batch={batch:3}: {c["per_second"][OURS]:6}/s on {c["processors"][OURS]:g} processors,', ', '.join(f'{r["median"]:g} x {n}' for n, r in c['ratio'].items()), flush=True)


if __name__ == '__main__': main()

"""Images per second of the generator against plain `captcha.image.ImageCaptcha`, and of packed reading against decoding PNG files.

    python benchmarks/synth.py [--out FILE] [--rounds 9] [--n 200] [--quick]

Drawing: plain ImageCaptcha, the generator in one process, and the generator in two processes take turns, round after round, so that a busy machine slows
all of them; what counts is the ratio within a round, and its median. The images are of the same distribution: the same arithmetic, only the colour of specks
on the rims of characters is imitated (`twins` measures by how much the two drawings differ when they get the same random numbers). Texts are drawn in both.
The two processes write their images into memory that this process shares, and the time runs until the last one is there.

Reading: the same images as PNG files and as packed shards, in random order, each into a float32 batch (64, 3, height, width) from 0 to 1. Both are in the
page cache after the first round, which doesn't count.
"""
import argparse, os, random, shutil, tempfile, time
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from captcha.image import ImageCaptcha
from captcha_fastai.folder import generate_folder
from captcha_fastai.pack import pack
from captcha_fastai.synth import SynthCaptcha
from common import results, save_json, where

CHARS, SEED = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', 0
TASKS = [dict(size=(60,160), length=4), dict(size=(80,170), length=4), dict(size=(50,200), length=5)]
STYLES = dict(line_blur=(50,200), competition=(160,400), phase1=(80,200), photo_serif=(46,284), outline=(60,160), emboss=(60,160), scatter=(60,160), mixed=(60,160))


def seconds(f):
    start = time.perf_counter(); f()
    return time.perf_counter() - start

def worker(synth, pipe, name, n):
    "Draws what it is asked for into memory that it shares with the parent, as the workers of a DataLoader do."
    memory = SharedMemory(name); images = np.ndarray((n, *synth.size, 3), np.uint8, memory.buf)
    warm(synth); pipe.send('ready')
    while (rows := pipe.recv()):
        for i in rows: images[i % n] = np.asarray(synth[i][0])
        pipe.send(len(rows))

class Two:
    "Two processes that draw `n` images between them."
    def __init__(self, synth, n):
        spawn = get_context('spawn'); self.n = n
        self.memory = SharedMemory(create=True, size=n*synth.size[0]*synth.size[1]*3)
        self.pipes, ends = zip(*[spawn.Pipe() for _ in range(2)])
        self.procs = [spawn.Process(target=worker, args=(synth, e, self.memory.name, n), daemon=True) for e in ends]
        for p in self.procs: p.start()
        for p in self.pipes: assert p.recv() == 'ready'
    def __call__(self, start):
        for k,p in enumerate(self.pipes): p.send(range(start + k*self.n//2, start + (k+1)*self.n//2))
        assert sum(p.recv() for p in self.pipes) == self.n
    def close(self):
        for p in self.pipes: p.send(None)
        for p in self.procs: p.join()
        self.memory.close(); self.memory.unlink()

def warm(synth):
    "Draws until every glyph is known, as after the first seconds of a long run."
    for i in range(1200): synth[i]

def drawing(task, rounds, n):
    synth = SynthCaptcha(CHARS, seed=SEED, **task)
    (h,w),r = task['size'], random.Random(SEED)
    plain = ImageCaptcha(w, h)
    text = lambda: ''.join(r.choices(CHARS, k=task['length']))
    def one_plain():
        for _ in range(n): plain.generate_image(text())
    def one_ours(at):
        for i in range(at, at+n): synth[i]
    two = Two(synth, 4*n); warm(synth); one_plain(); two(0)
    rows = [(seconds(one_plain), seconds(lambda: one_ours(k*n)), seconds(lambda: two(4*k*n))/4) for k in range(rounds)]
    two.close()
    ratio = lambda k: dict(median=round(median(a[0]/a[k] for a in rows), 2), lowest=round(min(a[0]/a[k] for a in rows), 2), highest=round(max(a[0]/a[k] for a in rows), 2))
    rate = lambda k: round(n/median(a[k] for a in rows))
    return dict(task, plain_per_s=rate(0), one_process_per_s=rate(1), two_processes_per_s=rate(2), one_process=ratio(1), two_processes=ratio(2), twins=twins(synth))

def twins(synth, n=200):
    "How far the fast drawing is from the package's own code with the same random numbers."
    from captcha_fastai.package import ImageCaptcha as Style
    exact = synth.replace(style=Style(exact=True))
    d = np.stack([np.asarray(synth[i][0]).astype(int) - np.asarray(exact[i][0]) for i in range(n)])
    return dict(images=n, equal_bytes=round((d == 0).mean().item(), 4), mean_difference=round(abs(d).mean().item(), 3))

def decode(path, names, ids):
    "PNG files as a float batch."
    out = None
    for k,i in enumerate(ids):
        with Image.open(path/names[i]) as im: a = np.asarray(im)
        if out is None: out = np.empty((len(ids), 3, *a.shape[:2]), np.float32)
        np.multiply(a.transpose(2,0,1), np.float32(1/255), out=out[k])
    return out

def each(f, batches):
    "As in training: a batch is gone when the next one comes."
    for o in batches: f(o)

def reading(rounds, n, batches=8, bs=64):
    synth,tmp = SynthCaptcha(CHARS, seed=SEED), Path(tempfile.mkdtemp())
    try:
        folder = generate_folder(tmp/'files', n, synth, progress=False)
        packed = pack(tmp/'packed', folder, of=4, progress=False)
        names = sorted(o.name for o in folder.glob('*.png')); r = random.Random(SEED); rows = []
        for k in range(rounds+1):
            ids = [r.sample(range(n), bs) for _ in range(batches)]
            rows.append((seconds(lambda: each(lambda o: decode(folder, names, o), ids)), seconds(lambda: each(packed.floats, ids))))
        assert np.array_equal(decode(folder, names, ids[0]), packed.floats(ids[0])[0])
        rows = rows[1:]; m = bs*batches
        return dict(images=n, size=synth.size, batch=bs, png_per_s=round(m/median(a for a,_ in rows)), packed_per_s=round(m/median(b for _,b in rows)),
                    ratio=dict(median=round(median(a/b for a,b in rows), 1), lowest=round(min(a/b for a,b in rows), 1), highest=round(max(a/b for a,b in rows), 1)))
    finally: shutil.rmtree(tmp)

def styles(n):
    "Milliseconds an image of the other styles, one process."
    out = {}
    for name,size in STYLES.items():
        s = SynthCaptcha('23456789abcdefg', 5, size, name, SEED)
        for i in range(150): s[i]
        out[name] = dict(size=size, ms=round(1000*median(seconds(lambda: [s[i] for i in range(k*n, k*n+n)])/n for k in range(3)), 2))
    return out

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--out', type=Path, default=results/'synth.json', help='where to write the results')
    ap.add_argument('--rounds', type=int, default=9, help='how often the contestants take turns')
    ap.add_argument('--n', type=int, default=200, help='images in a turn')
    ap.add_argument('--quick', action='store_true', help='two short rounds: does it run?')
    a = ap.parse_args()
    if a.quick: a.rounds, a.n = 2, 40
    out = dict(what='images per second; ratio: the speed of ours over that of the other, within a round', seed=SEED, rounds=a.rounds, images_a_turn=a.n,
               **where('pillow', 'numpy', 'scipy', 'captcha', 'pyarrow'), load_average=os.getloadavg() if hasattr(os, 'getloadavg') else None, drawing=[])
    for t in TASKS[:1] if a.quick else TASKS:
        out['drawing'].append(drawing(t, a.rounds, a.n)); save_json(a.out, out)
        d = out['drawing'][-1]; print(d['size'], d['plain_per_s'], 'plain,', d['one_process'], 'one process,', d['two_processes'], 'two', d['twins'], flush=True)
    out['reading'] = reading(a.rounds, 200 if a.quick else 2000); save_json(a.out, out); print(out['reading'])
    out['styles'] = styles(20 if a.quick else 100); save_json(a.out, out); print(out['styles'])


if __name__ == '__main__': main()

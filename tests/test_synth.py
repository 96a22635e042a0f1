"""The generator: pure in (settings, seed, number), the package's own distribution, folders and shards that survive being killed."""
import hashlib, os, random, signal, subprocess, sys, time, warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from captcha_fastai.folder import LabelledFolder, generate_folder, label_of
from captcha_fastai.pack import Packed, pack
from captcha_fastai.package import ImageCaptcha
from captcha_fastai.styles import STYLES, Rng, get_style
from captcha_fastai.synth import SynthCaptcha

root = Path(__file__).resolve().parent.parent
CHARS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ'
LETTERS = '23456789abcdefghkmnpqrstwxy'


def digest(synth, i): im, text = synth[i]; return hashlib.sha256(im.tobytes() + text.encode()).hexdigest()

def digests(synth, ids): return {i: digest(synth, i) for i in ids}


# ---- purity

@pytest.mark.parametrize('style', sorted(STYLES))
def test_any_order(style):
    "Item i is the same whatever was drawn before, forwards, backwards, alone, in a fresh object."
    synth = SynthCaptcha(LETTERS, (3, 6), style=style, seed=2)
    first = digests(synth, range(12))
    assert len(set(first.values())) == 12
    assert digests(synth, reversed(range(12))) == first
    assert digests(SynthCaptcha(LETTERS, (3, 6), style=style, seed=2), [7, 3]) == {i: first[i] for i in (7, 3)}
    assert not set(first.values()) & set(digests(synth.replace(seed=3), range(12)).values())

def test_any_process():
    "Fresh processes, with another hash seed and other numbers drawn from the global generators, draw the same images."
    synth = SynthCaptcha(LETTERS, 5, style='mixed', seed='a text')
    other = SynthCaptcha(CHARS, 4, seed=11)
    here = digests(synth, range(40)), digests(other, range(40))
    random.seed(1); np.random.seed(1)
    assert (digests(synth, range(40)), digests(other, range(40))) == here
    with ProcessPoolExecutor(2, get_context('spawn')) as ex:
        halves = list(ex.map(digests, [synth, synth, other, other], [range(0, 20), range(20, 40)]*2))
    assert ({**halves[0], **halves[1]}, {**halves[2], **halves[3]}) == here

def test_threads():
    from concurrent.futures import ThreadPoolExecutor
    synth = SynthCaptcha(CHARS, 4, seed=5, style=ImageCaptcha(exact=True))
    with ThreadPoolExecutor(2) as ex: assert list(ex.map(lambda i: digest(synth, i), range(12))) == [digest(synth, i) for i in range(12)]

def test_installed_package_is_untouched():
    "After drawing, the package that others import still draws from the operating system's secrets."
    import captcha.image, secrets
    synth = SynthCaptcha(CHARS, 4, style=ImageCaptcha(exact=True)); synth[0]
    assert captcha.image.secrets is secrets
    plain = captcha.image.ImageCaptcha()
    assert plain.generate_image('A').tobytes() != plain.generate_image('A').tobytes()


# ---- distribution

def shares(a, lo, hi, k):
    "Histogram of each of `a`, `(n, …)`, with `k` bins from `lo` to `hi`: `(n, k)`, parts of 1."
    q = ((a.reshape(len(a), -1) - lo)*(k/(hi - lo))).clip(0, k-1).astype(np.int64) + np.arange(len(a))[:, None]*k
    return np.bincount(q.ravel(), minlength=len(a)*k).reshape(len(a), k)/(a.size/len(a))

def features(ims):
    "Sums that a difference in shape, place, colour, weight, noise or rim would move: `(n, d)`."
    if len(ims) > 100: return np.concatenate([features(ims[i:i+100]) for i in range(0, len(ims), 100)])
    x = np.stack([np.asarray(o, np.float32) for o in ims])/255
    g = x.mean(-1); dx, dy = np.abs(np.diff(g, axis=2)), np.abs(np.diff(g, axis=1))
    lap = g[:, 2:, 1:-1] + g[:, :-2, 1:-1] + g[:, 1:-1, 2:] + g[:, 1:-1, :-2] - 4*g[:, 1:-1, 1:-1]
    means = [o.mean((1, 2))[:, None] for o in (dx, dy, np.abs(lap))]
    return np.concatenate([g.mean(1), g.mean(2), x.mean((1, 2)), x.std((1, 2)), shares(g, 0, 1, 24), shares(x.max(-1) - x.min(-1), 0, 1, 24), shares(dx, 0, .5, 16),
                           shares(dy, 0, .5, 16), shares(lap, -.6, .6, 24), shares(dx[:, 1:]*dy[:, :, 1:], 0, .06, 8), *means], 1)

def tells_apart(a, b, seed=0):
    "Accuracy on images not trained on of two classifiers, trees over features and a small network over pixels, that try to tell `a` from `b`."
    import torch
    from torch import nn
    n = len(a); cut = n*2//3
    x, y = [*a[:cut], *b[:cut]], np.r_[np.zeros(cut), np.ones(cut)]
    vx, vy = [*a[cut:], *b[cut:]], np.r_[np.zeros(n-cut), np.ones(n-cut)]
    from sklearn.ensemble import HistGradientBoostingClassifier
    trees = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=12, random_state=seed).fit(features(x), y).score(features(vx), vy)
    torch.manual_seed(seed)
    t = lambda ims: torch.from_numpy(np.stack([np.asarray(o) for o in ims])).permute(0, 3, 1, 2)
    conv = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    net = nn.Sequential(conv(3, 12), conv(12, 24), conv(24, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
    X, Y, epochs, bs = t(x), torch.from_numpy(y).long(), 2, 32
    opt = torch.optim.AdamW(net.parameters(), 3e-3); plan = torch.optim.lr_scheduler.OneCycleLR(opt, 5e-3, epochs*-(-len(Y)//bs))
    for _ in range(epochs):
        for o in torch.randperm(len(Y)).split(bs):
            opt.zero_grad(); nn.functional.cross_entropy(net(X[o].float()/255 - .8), Y[o]).backward(); opt.step(); plan.step()
    net.eval()
    with torch.no_grad(): pixels = (net(t(vx).float()/255 - .8).argmax(1).numpy() == vy).mean()
    return trees, pixels

@pytest.fixture(scope='module')
def plain():
    "Unseeded images of the installed package."
    from captcha.image import ImageCaptcha as Plain
    p, r = Plain(160, 60), random.SystemRandom()
    return [p.generate_image(''.join(r.choices(CHARS, k=4))) for _ in range(2100)]

def test_images_are_the_packages_own(plain):
    "Neither classifier tells seeded images from unseeded ones: at most 55 % right. (1400 held-out images: 55 % is 3.7 standard errors above 50.)"
    synth = SynthCaptcha(CHARS, 4, seed=random.SystemRandom().random()) # another seed every time: none has been chosen to pass
    trees, pixels = tells_apart(plain, [synth[i][0] for i in range(len(plain))])
    assert trees <= .55 and pixels <= .55, (trees, pixels)

def test_classifiers_can_tell(plain):
    "The same classifiers see a departure, fonts six pixels larger, so that their failure above means something."
    bigger = SynthCaptcha(CHARS, 4, style=ImageCaptcha(font_sizes=(48, 56, 62)))
    trees, pixels = tells_apart(plain[:900], [bigger[i][0] for i in range(900)])
    assert max(trees, pixels) > .6, (trees, pixels)

@pytest.mark.parametrize('size', [(60, 160), (80, 170), (72, 72), (50, 200), (40, 90)])
def test_fast_drawing_is_the_exact_drawing(size):
    "Same seed, same picture: the shapes are equal, and only specks on rims differ."
    n = max(1, size[1]//40)
    a, b = (SynthCaptcha(CHARS+'gjpqy', n, size, ImageCaptcha(exact=e), seed=3) for e in (False, True))
    d = np.stack([np.asarray(a[i][0], int) - np.asarray(b[i][0], int) for i in range(40)])
    assert abs(d).mean() < 1.2 and (abs(d) > 40).mean() < .006
    assert abs(d.mean()) < .2 # no drift towards light or dark

def test_exact_drawing_is_the_packages_code():
    "With the secrets replaced by the same generator, the installed module draws the very same bytes."
    import captcha.image as m
    class Secrets:
        def __init__(self, r): self.randbelow, self.choice, self.randbits = lambda n: int(r.random()*n), lambda s: s[int(r.random()*len(s))], r.getrandbits
    synth, real = SynthCaptcha(CHARS, 4, seed=9, style=ImageCaptcha(exact=True)), m.secrets
    try:
        for i in range(10):
            m.secrets = Secrets(Rng(f'draw 9 {i}'))
            assert m.ImageCaptcha(160, 60, list(synth.fonts)).generate_image(synth.text(i)).tobytes() == synth[i][0].tobytes()
    finally: m.secrets = real


# ---- styles

@pytest.mark.parametrize('style', sorted(STYLES))
@pytest.mark.parametrize('size', [(24, 60), (50, 200), (160, 400)])
def test_every_size_and_length(style, size):
    "RGB of the size asked for, whatever the size and length; ink is there, and another text is another picture."
    synth = SynthCaptcha(LETTERS, (1, 9), size, style, seed=1)
    for i in range(6):
        im = synth[i][0]
        assert im.mode == 'RGB' and im.size == size[::-1]
        assert np.asarray(im).std() > 1
    assert synth.draw('a', 3) != synth.draw('8', 3)

def test_fonts_are_checked():
    with pytest.warns(UserWarning, match=r"'STIXSizOneSymReg.ttf' cannot draw .*'a'"): s = SynthCaptcha('ab', 3, style='scatter', fonts=['DejaVuSans', 'STIXSizOneSymReg'])
    assert [Path(f).stem for f in s.fonts] == ['DejaVuSans']
    with pytest.raises(ValueError, match='can draw all of'): SynthCaptcha('ab验', 3, style='scatter')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for name in STYLES: SynthCaptcha(CHARS + LETTERS.lower()[8:], 3, style=name) if name != 'x' else None

def test_own_folder_of_fonts(tmp_path):
    import shutil
    from captcha_fastai.fonts import carried_fonts
    shutil.copy(carried_fonts()['DejaVuSans'], tmp_path/'mine.ttf')
    s = SynthCaptcha('ab', 3, style='scatter', fonts=tmp_path)
    assert s.fonts == (str(tmp_path/'mine.ttf'),)
    assert s[0][0] == SynthCaptcha('ab', 3, style='scatter', fonts='DejaVuSans')[0][0] # the content counts, not the name
    assert s.spec()['fonts'] != SynthCaptcha('ab', 3, style='scatter', fonts='DejaVuSans').spec()['fonts']


# ---- folders

def contents(path): return {o.name: hashlib.sha256(o.read_bytes()).hexdigest() for o in Path(path).iterdir()}

def killed(script, path, ready, timeout=30):
    "Runs `script`, and kills it the hard way once `ready()` holds."
    p = subprocess.Popen([sys.executable, '-c', script, str(path)], cwd=root, env={**os.environ, 'PYTHONPATH': str(root)})
    end = time.time() + timeout
    while not ready() and p.poll() is None and time.time() < end: time.sleep(.005)
    early = p.poll() is None
    p.kill(); p.wait()
    return early

JOB = """
import sys
from captcha_fastai.synth import SynthCaptcha
from captcha_fastai.{mod} import {fun}
synth = SynthCaptcha('aAbBcC12', (2,5), (160,400), 'competition', seed=4)
if __name__ == '__main__': {call}
"""

@pytest.mark.parametrize('workers', [0, 2])
def test_killed_and_resumed(tmp_path, workers):
    "Killed half-way, what is there are whole images; run again, the folder is byte for byte that of an undisturbed run, whatever has become of images in between."
    synth = SynthCaptcha('aAbBcC12', (2, 5), (160, 400), 'competition', seed=4)
    job = JOB.format(mod='folder', fun='generate_folder', call=f'generate_folder(sys.argv[1], 200, synth, workers={workers}, progress=False)')
    part = tmp_path/'part'
    assert killed(job, part, lambda: part.is_dir() and len(list(part.glob('*.png'))) > 20), 'the job was over before it was killed'
    time.sleep(2) # what the workers had begun
    there = list(part.glob('*.png'))
    assert 20 < len(there) < 200 and not (part/'labels.csv').exists()
    for f in there:
        with Image.open(f) as im: im.load()
    there[3].write_bytes(there[4].read_bytes()) # it opens, but it is another
    generate_folder(part, 200, synth, progress=False)
    generate_folder(tmp_path/'whole', 200, synth, workers=0, progress=False)
    assert contents(part) == contents(tmp_path/'whole')

def test_workers_go_when_the_parent_is_killed(tmp_path):
    job = JOB.format(mod='folder', fun='generate_folder', call='generate_folder(sys.argv[1], 3000, synth, workers=2, progress=False)')
    count = lambda: len(list((tmp_path/'x').glob('*.png')))
    killed(job, tmp_path/'x', lambda: (tmp_path/'x').is_dir() and count() > 5)
    time.sleep(1); a = count(); time.sleep(.5)
    assert a == count() < 3000

def test_labels_survive(tmp_path):
    "Labels that differ only in case, come twice, or hold what no file name may: the names and labels.csv both keep them."
    chars = 'aA/\\:*?"<>|%. ~_'
    synth = SynthCaptcha(chars, (1, 3), seed=1, fonts='DejaVuSans')
    folder = LabelledFolder(generate_folder(tmp_path/'f', 120, synth, progress=False))
    want = [synth.text(i) for i in range(120)]
    assert [folder.text(i) for i in range(120)] == want
    names = [f for f, _ in folder.items]
    assert [label_of(f) for f in names] == want
    assert len({f.lower() for f in names}) == 120 and len(set(want)) < 120
    assert not any(c in f for f in names for c in '/\\:*?"<>| ')


# ---- packed

def test_shards_alone_or_together(tmp_path):
    "Shards made alone, in any order, by several processes, or in one run are the same bytes."
    synth = SynthCaptcha(LETTERS, (3, 5), seed=8, style='scatter')
    one = pack(tmp_path/'one', synth, n=101, of=4, progress=False)
    for i in (2, 0, 3, 1): pack(tmp_path/'alone', synth, n=101, of=4, shard=i, progress=False)
    two = pack(tmp_path/'two', synth, n=101, of=4, workers=2, progress=False)
    assert contents(tmp_path/'one') == contents(tmp_path/'alone') == contents(tmp_path/'two')
    for i in random.Random(0).sample(range(101), 30): assert two[i] == synth[i]
    assert one.verify() is one

def test_pack_killed_and_resumed(tmp_path):
    synth = SynthCaptcha('aAbBcC12', (2, 5), (160, 400), 'competition', seed=4)
    job = JOB.format(mod='pack', fun='pack', call='pack(sys.argv[1], synth, n=240, of=12, progress=False)')
    part = tmp_path/'part'
    assert killed(job, part, lambda: part.is_dir() and len(list(part.glob('*.arrow'))) > 2)
    with pytest.raises(ValueError, match='no index.json'): Packed(part)
    pack(part, synth, n=240, of=12, progress=False).verify()
    pack(tmp_path/'whole', synth, n=240, of=12, progress=False)
    done = lambda p: {k: v for k, v in contents(p).items() if not k.endswith('.tmp')}
    assert done(part) == done(tmp_path/'whole')

def test_several_readers(tmp_path):
    synth = SynthCaptcha(LETTERS, 4, seed=8)
    p = pack(tmp_path/'p', synth, n=60, of=3, progress=False)
    p[0] # mapped already: what is pickled must not be the map
    with ProcessPoolExecutor(2, get_context('spawn')) as ex: halves = list(ex.map(digests, [p, p], [range(0, 60, 2), range(1, 60, 2)]))
    assert {**halves[0], **halves[1]} == digests(synth, range(60))

def test_readable_elsewhere(tmp_path):
    "The shards are ordinary Arrow files."
    feather = pytest.importorskip('pyarrow.feather')
    synth = SynthCaptcha(LETTERS, 4, seed=8)
    pack(tmp_path/'p', synth, n=10, of=1, progress=False)
    t = feather.read_table(next((tmp_path/'p').glob('*.arrow')))
    assert t['label'].to_pylist() == [synth.text(i) for i in range(10)]
    assert str(t['image'].type).startswith('extension<arrow.fixed_shape_tensor') and t['image'].type.shape == [3, 60, 160]


# ---- the command

def test_help_is_quick():
    "`captcha-synth --help` needs neither torch nor fastai nor numpy."
    code = "import sys; from captcha_fastai.synth_cli import main\ntry: main(['--help'])\nexcept SystemExit: print([m for m in ('torch','fastai','numpy','PIL','matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(root)})
    assert out.stdout.strip().endswith('[]'), out

@pytest.mark.parametrize('words,says', [
    (['folder', 'x', '-n', '3', '--style', 'nope'], "no style 'nope'"),
    (['folder', 'x', '-n', '3', '--style', 'mixed', '--knob', 'styles=[]'], 'With styles=[] no captcha can be drawn'),
    (['show', 'x.png', '--chars', 'aa'], "each once; 'a' is not so"),
    (['show', 'x.png', '--knob', 'colour=3'], "no knob 'colour'"),
    (['pack', 'x', '-n', '3', '--of', '4'], '3 images do not fill 4 shards'),
    (['pack', 'x', '-n', '3', '--source', 'nowhere'], 'has no labels.csv'),
])
def test_errors_are_one_line(words, says, tmp_path, monkeypatch, capsys):
    from captcha_fastai.synth_cli import main
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    err = capsys.readouterr().err
    assert says in err and err.count('\n') == 1 and err.startswith('captcha-synth: ')
    assert not list(tmp_path.iterdir()), 'something was left behind'

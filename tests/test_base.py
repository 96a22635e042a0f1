"""The base model: its pretraining goes on where it stopped, what it ships can be used, and no weights are half there."""
import sys
from pathlib import Path
from types import SimpleNamespace
import pytest
import torch

root = Path(__file__).parent.parent

@pytest.fixture(scope='module')
def base():
    "The script of the pretraining"
    sys.path.insert(0, str(root/'benchmarks'))
    try:
        import base
        yield base
    finally: sys.path.remove(str(root/'benchmarks'))

@pytest.fixture
def start(base, tmp_path, monkeypatch):
    "Starts the script in a folder of its own; answers its averaged weights"
    monkeypatch.delenv('CAPTCHA_FASTAI_DATA', raising=False)
    monkeypatch.setattr(base, 'cache', tmp_path); monkeypatch.setattr(base, 'results', tmp_path)
    base.real_sets.cache_clear()
    def _start(*words):
        base.main([*words, '--bs', '16', '--test', '1', '--device', 'cpu', '--workers', '0'])
        return torch.load(tmp_path/'base'/f"{words[words.index('--name')+1]}.pth", weights_only=True)
    return _start

def test_goes_on_where_it_stopped(base, start, monkeypatch):
    whole = start('--name', 'whole', '--samples', '48')
    with monkeypatch.context() as m:
        m.setattr(base, 'time', SimpleNamespace(time=iter(range(0, 10**6, 100)).__next__)) # every look at the clock is 100 seconds later
        part = start('--name', 'part', '--samples', '48', '--minutes', '1')
    assert part['seen'] == 16
    rest = start('--name', 'part', '--samples', '48')
    assert rest['seen'] == 48
    for k,v in whole['average'].items(): assert torch.equal(v, rest['average'][k]), k
    for k,v in whole['model'].items(): assert torch.equal(v, rest['model'][k]), k
    assert not torch.equal(part['model']['head.6.weight'], rest['model']['head.6.weight'])

def test_starts_from_weights(base, start):
    "Another round begins with the weights that are given and with the captcha after those that they have seen"
    from captcha_fastai.all import base_file,read_weights
    done = start('--name', 'on', '--start', str(base_file), '--seen', '640000', '--samples', '640016', '--lr', '0')
    assert done['seen'] == 640016 and done['recipe']['seen'] == 640000
    for k,v in read_weights(base_file).tensors.items():
        if k.endswith('weight'): assert torch.equal(done['model'][k], v.float()), k

def test_another_recipe_is_refused(start):
    start('--name', 'a', '--samples', '16')
    with pytest.raises(ValueError, match='of another recipe'): start('--name', 'a', '--samples', '32', '--without', 'line_blur')

def test_samples(base):
    data,same,other = (base.Drawn(s, easy=10) for s in (0,0,1))
    for i in (0, 5, 1000):
        (x,y),(x2,y2) = data[i],same[i]
        assert torch.equal(x, x2) and torch.equal(y, y2) and x.dtype == torch.uint8 and x.shape == (3,64,160)
    assert not torch.equal(data[5][0], other[5][0])
    plans = [data.plan(i) for i in range(300)]
    assert {len(t) for t,_,_,_ in plans} == set(range(1, 9)) and not any(p for *_,p,_ in plans[10:])
    assert all(plain and len(t) <= 3 for t,_,plain,_ in plans[:1]) and len({s for _,s,_,_ in plans}) > 10
    left = base.Drawn(0, without=('line_blur','competition'))
    assert not {'line_blur','competition'} & set(left.styles) and len(left.styles) == 7
    with pytest.raises(ValueError, match='No style is left'): base.Drawn(0, without=tuple(data.styles))

def test_path(base):
    y = torch.tensor([[5,6,0,0],[1,2,3,4]])
    assert base.even_path(y[:1], 8).tolist() == [[0,5,5,0,0,6,6,0]]
    from captcha_fastai.decode import _collapse
    ids = _collapse(base.even_path(y, 24).numpy(), 0)[0]
    assert [[i for i in o if i] for o in ids.tolist()] == [[5,6],[1,2,3,4]]

def test_ship(base, start, tmp_path, monkeypatch):
    from captcha_fastai.all import CaptchaReader,base_weights,captcha_base,captcha_learner,CaptchaDataLoaders,SynthCaptcha
    state = start('--name', 'b', '--samples', '32')
    monkeypatch.setattr(base.ship, '__defaults__', (tmp_path,))
    start('--name', 'b', '--samples', '32', '--ship')
    file = tmp_path/'base.safetensors'
    def rows(): return [(o['samples'], o.get('weights')) for o in base.load_json(tmp_path/'base.json')['rows']]
    shipped = (32, base.digest(file))
    assert rows() == [shipped]
    start('--name', 'b', '--samples', '32') # nothing is left to do
    assert rows() == [shipped]
    start('--name', 'b', '--samples', '48')
    assert rows() == [shipped, (48, None)] # the row of what is in the package stays
    with pytest.raises(SystemExit, match='train first'): start('--name', 'none', '--samples', '32', '--ship')
    assert file.stat().st_size < 12e6 and 'Use it only on captchas that are yours' in (tmp_path/'base.md').read_text()
    tensors = base_weights(path=file).tensors
    for k,v in tensors.items(): assert torch.allclose(v.float(), state['average']['module.'+k].float(), atol=2e-3, rtol=2e-3), k
    im = SynthCaptcha('0123', 4, (50,180))[0][0]
    assert CaptchaReader.base(path=file).read(im, length=4, allowed='0123').text.strip('0123') == ''
    dls = CaptchaDataLoaders.from_synth(SynthCaptcha('bA9', 3, (50,180)), n=8, valid=8, bs=4)
    learn = captcha_learner(dls, captcha_base, weights=file)
    assert torch.equal(learn.model.head[-1].weight[1:], torch.stack([tensors['head.6.weight'][1+base.base_chars.index(c)].float() for c in learn.vocab.chars]))

def test_shipped():
    "What comes with the package is whole, small, described, and reads drawn captchas of seeds that it has not seen, without a network"
    from captcha_fastai.all import CaptchaReader,SynthCaptcha,base_file
    assert base_file.stat().st_size < 12e6 and 'No real captcha was used' in base_file.with_suffix('.md').read_text(encoding='utf-8')
    images,labels = zip(*SynthCaptcha('abcdefghkmnpqrstuwxyz23456789', (4,6), (60,200), 'outline', seed='shipped', n=40))
    texts = [r.text.casefold() for r in CaptchaReader.base().read(list(images))]
    assert sum(a == b for a,b in zip(texts, labels)) > 20

def test_shipped_learns():
    "From the weights of the package, few rounds on 80 labels of a kind that is read badly read many more of others"
    from captcha_fastai.all import CaptchaDataLoaders,Phase1,SynthCaptcha,captcha_base,captcha_learner,set_seed
    images,labels = map(list, zip(*SynthCaptcha('0123456789', 5, (60,200), Phase1(angle=(-85.,85.)), seed='learns', n=280))) # no style turns digits so far
    set_seed(0, reproducible=True)
    learn = captcha_learner(CaptchaDataLoaders.from_lists('.', images[:80], labels[:80], valid_pct=.2, seed=0, num_workers=0), captcha_base)
    def right(): return sum(learn.vocab.decode(h[0].ids) == l for h,l in zip(learn.head.decode(learn.log_probs(images[80:])), labels[80:]))
    before = right()
    with learn.no_bar(): res = learn.few_shot(rounds=4)
    assert res.labels == 80 and res.rounds and right() > before+40, (before, right())

def test_tta(tmp_path):
    "Six orders of the channels on the base, a CTC network: the same whatever the order of the picture's, and saved and read again"
    import numpy as np
    from captcha_fastai.all import CaptchaReader,SynthCaptcha
    base = CaptchaReader.base('cpu')
    six = base.tta()
    images = [SynthCaptcha('0123456789', 5, (60,200), 'competition', seed='tta')[i][0] for i in range(4)]
    flipped = [np.asarray(o)[...,[1,2,0]] for o in images]
    assert np.abs(base.log_probs(images)-base.log_probs(flipped)).max() > .1
    assert np.abs(six.log_probs(images)-six.log_probs(flipped)).max() < 1e-3 # whatever the order, it sees all six
    six.save(tmp_path/'six')
    assert CaptchaReader.load(tmp_path/'six').read(images) == six.read(images)

def test_onnx(tmp_path):
    pytest.importorskip('onnxruntime')
    import numpy as np
    from captcha_fastai.all import CaptchaReader,OnnxReader,Weights,base_chars,base_size,captcha_base,write_weights
    net = captcha_base(63, 8, base_size)
    file = write_weights(tmp_path/'w.safetensors', Weights(net.state_dict(), dict(chars=base_chars, max_len=8, size=base_size, mean=[.5]*3, std=[.25]*3), {}))
    reader = CaptchaReader.base('cpu', file)
    reader.to_onnx(tmp_path/'base.onnx') # which compares them, too
    x = np.random.default_rng(0).integers(0, 256, (2,50,200,3), dtype=np.uint8)
    assert np.abs(np.exp(OnnxReader(tmp_path/'base.onnx').log_probs(x)) - np.exp(reader.log_probs(x))).max() < 1e-4

def test_without_weights(tmp_path, monkeypatch):
    import captcha_fastai.base as b
    from captcha_fastai.all import CaptchaDataLoaders,CaptchaReader,SynthCaptcha,captcha_base,captcha_learner
    monkeypatch.setattr(b, 'base_file', tmp_path/'base.safetensors')
    dls = CaptchaDataLoaders.from_synth(SynthCaptcha('01', 3, (50,180)), n=8, valid=8, bs=4)
    with pytest.raises(FileNotFoundError, match='weights=False'): captcha_learner(dls, captcha_base)
    with pytest.raises(FileNotFoundError, match='install the package again'): CaptchaReader.base()
    assert captcha_learner(dls, captcha_base, weights=False).start is None

def test_few_shot(tmp_path):
    "From weights over all letters and digits to three characters: rows by character, one batch of labelled and drawn images, and all but the weights is as it was"
    from captcha_fastai.all import CaptchaDataLoaders,SynthCaptcha,Weights,base_chars,base_size,captcha_base,captcha_learner,write_weights
    net = captcha_base(63, 8, base_size)
    file = write_weights(tmp_path/'w.safetensors', Weights(net.state_dict(), dict(chars=base_chars, max_len=8, size=base_size, mean=[.5]*3, std=[.25]*3), {}))
    synth = SynthCaptcha('bA9', (2,3), (32,80), seed=1)
    images,labels = zip(*synth.replace(n=60))
    dls = CaptchaDataLoaders.from_lists('.', images, labels, valid_pct=.2, seed=0, bs=16)
    learn = captcha_learner(dls, captcha_base, weights=file)
    assert torch.equal(learn.model.head[-1].weight[1:], torch.stack([net.head[-1].weight[1+base_chars.index(c)] for c in learn.vocab.chars]))
    steps = [*learn.dls.train.after_batch.fs]
    with learn.no_bar(): res = learn.few_shot(minutes=1e-4)
    assert (res.labels, res.kept, res.guessed) == (60, 12, 0) and 0 <= res.rounds <= 1
    assert learn.dls is dls and learn.opt is None and [*dls.train.after_batch.fs] == steps

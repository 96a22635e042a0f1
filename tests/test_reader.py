"""Learner, reader and ONNX file agree for every architecture; readers survive hostile files; commands start at once and answer with their status."""
import inspect, json, os, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
import torch
from captcha_fastai.all import CaptchaAugment, CaptchaDataLoaders, RemoveBackground, SynthCaptcha, arch_meta, captcha_learner, nopool_xresnet, set_seed
from captcha_fastai.inference import CaptchaReader
from captcha_fastai.onnx_reader import OnnxReader
from captcha_fastai.reader_file import ReaderError

root = Path(__file__).parent.parent
synth = SynthCaptcha('0123456789', 4, (60,160), seed=3)
images = [synth[i][0] for i in range(100, 107)]

def learner(arch=nopool_xresnet, size=(32,96), mode='RGB', decoder=None, batch_tfms=None, **arch_args):
    "A learner of random weights, whose batch norm has seen a batch, and so sharp that its texts differ"
    set_seed(0)
    dls = CaptchaDataLoaders.from_synth(synth, 16, 4, size=size, mode=mode, bs=16, batch_tfms=batch_tfms)
    if 'body' in inspect.signature(arch).parameters: arch_args = dict(body='small_resnet', **arch_args)
    learn = captcha_learner(dls, arch, arch_args=arch_args, decoder=decoder)
    with torch.no_grad(): learn.model.train()(dls.one_batch()[0])
    learn.head.temperature = 0.05
    return learn

def check_same(a, b, eps=1e-4):
    assert [t for t,_ in a] == [t for t,_ in b]
    assert np.abs(np.array([c for _,c in a]) - [c for _,c in b]).max() < eps

def pairs(readings): return [(r.text, r.confidence) for r in readings]

devices = ['cpu'] + ['cuda']*torch.cuda.is_available()

@pytest.mark.parametrize('device', devices)
@pytest.mark.parametrize('arch', arch_meta, ids=lambda f: f.__name__)
def test_everything_reads_the_same(arch, device, tmp_path):
    "predict, reader alone, reader in a batch, saved reader, ONNX file alone and in a batch; free and under constraints"
    learn = learner(arch, arch_meta[arch]['size'])
    reader = CaptchaReader.from_learner(learn, device=device)
    reader.save(tmp_path/'reader'); reader.to_onnx(tmp_path/'reader.onnx')
    onnx = OnnxReader(tmp_path/'reader.onnx')
    for options in ({}, dict(length=3), dict(allowed='0123'), dict(length=4, allowed=['01','23','45','67'])):
        want = [(t,c) for t,_,c in (learn.predict(im, **options) for im in images)]
        check_same(pairs([reader.read(im, **options) for im in images]), want)
        check_same(pairs(reader.read(images, **options)), want)
        check_same(pairs(CaptchaReader.load(tmp_path/'reader', device).read(images, bs=3, **options)), want)
        check_same(pairs(onnx.read(images, **options)), want)
        check_same(pairs([onnx.read(im, **options) for im in images]), want)
    assert {onnx._forward(reader._pixels(images[:1]*n)).shape[0] for n in (1,3,64)} == {1,3,64}

def test_readers_know_every_architecture_of_the_library():
    "A process that has imported nothing but the reader can load whatever a learner can be"
    code = 'import captcha_fastai.inference; from captcha_fastai.models import arch_meta; print(*sorted(f.__name__ for f in arch_meta))'
    known = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert known == sorted(f.__name__ for f in arch_meta if f.__module__.startswith('captcha_fastai.'))

@pytest.mark.parametrize('kw', [dict(mode='L'), dict(decoder=dict(length=4, allowed='123')), dict(decoder=dict(method='beam', beam_size=3))], ids=['grey','constrained','beam'])
def test_options_travel(kw, tmp_path):
    learn = learner(**kw)
    CaptchaReader.from_learner(learn, threshold=.3).save(tmp_path/'r')
    reader = CaptchaReader.load(tmp_path/'r'); reader.to_onnx(tmp_path/'r.onnx'); onnx = OnnxReader(tmp_path/'r.onnx')
    want = [(t,c) for t,_,c in map(learn.predict, images)]
    check_same(pairs(reader.read(images)), want); check_same(pairs(onnx.read(images)), want)
    assert [r.answered for r in onnx.read(images)] == [c >= .3 for _,c in want]

@pytest.mark.parametrize('mode', ['RGB','L'])
def test_the_ground_is_removed_by_every_reader(mode, tmp_path):
    "On flat grounds of several colours, and without one: predict, reader, saved reader, ensemble, ONNX file"
    learn = learner(mode=mode, hidden=16, batch_tfms=[RemoveBackground(share=.3), CaptchaAugment()])
    reader = CaptchaReader.from_learner(learn)
    reader.save(tmp_path/'r'); reader.to_onnx(tmp_path/'r.onnx')
    marks = [(np.asarray(im.convert('L')) < 128)[...,None] for im in images]
    flat = [np.where(m, np.uint8(ink), np.uint8(ground)) for m in marks[:3] for ink,ground in (((0,0,0),(255,255,255)), ((250,220,40),(30,140,200)), ((90,20,20),(80,90,80)))]
    items = flat + images
    want = [(t,c) for t,_,c in map(learn.predict, items)]
    for r in (reader, CaptchaReader.load(tmp_path/'r'), CaptchaReader.ensemble([reader, reader]), OnnxReader(tmp_path/'r.onnx')):
        assert r.info['background'] == dict(share=.3, tol=.02)
        check_same(pairs(r.read(items)), want); check_same(pairs([r.read(im) for im in items[:4]]), want[:4])
    kept = CaptchaReader({**reader.info, 'background':None}, reader.state_dict())
    assert np.abs(np.exp(kept.log_probs(flat)) - np.exp(reader.log_probs(flat))).max() > .01

@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('saved')/'reader'
    CaptchaReader.from_learner(learner(hidden=16)).save(folder)
    return folder

def test_one_broken_file_among_a_thousand(saved):
    reader = CaptchaReader.load(saved)
    items = [images[0]]*1000; items[500] = b'broken'
    rs = reader.read(items, progress=False)
    assert len(rs) == 1000 and [i for i,r in enumerate(rs) if r.error] == [500] and not rs[500].answered
    assert len({r.text for r in rs if not r.error}) == 1

def test_nothing_is_unpickled(saved, tmp_path):
    "A pickle in place of the weights, with a right checksum, is refused and not run"
    import hashlib, pickle, shutil
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'ran'),)
    shutil.copytree(saved, bad := tmp_path/'bad')
    data = pickle.dumps(Evil())
    (bad/'model.safetensors').write_bytes(data)
    info = json.loads((bad/'reader.json').read_text()); info['weights'] = dict(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (bad/'reader.json').write_text(json.dumps(info))
    with pytest.raises(ReaderError, match="can't be read"): CaptchaReader.load(bad)
    assert not (tmp_path/'ran').exists()

@pytest.mark.parametrize('name', ['reader.json','model.safetensors'])
def test_truncated_files_are_noticed(saved, tmp_path, name):
    import shutil
    data = (saved/name).read_bytes()
    for n in (0, 1, len(data)//2, len(data)-1):
        shutil.copytree(saved, bad := tmp_path/str(n))
        (bad/name).write_bytes(data[:n])
        if name == 'reader.json' and n == len(data)-1: continue # only the newline at its end is missing
        with pytest.raises(ReaderError, match=name): CaptchaReader.load(bad)

def test_every_field_is_checked(saved, tmp_path):
    "Each field of the JSON, replaced by values of other kinds: a ReaderError or a reader, never anything else"
    import shutil
    info = json.loads((saved/'reader.json').read_text())
    shutil.copytree(saved, bad := tmp_path/'bad')
    places = [(info, k) for k in info] + [(info['models'][0], k) for k in info['models'][0]] + [(info['weights'], k) for k in info['weights']]
    for o,k in places:
        old = o[k]
        for v in (None, -1, 10**9, 1e308, 'x', '', [], {}, [[]], True):
            o[k] = v
            (bad/'reader.json').write_text(json.dumps(info))
            try: CaptchaReader.load(bad, 'cpu')
            except ReaderError as e: assert len(str(e)) < 500
        o[k] = old

def run(*words, cwd=None):
    code = f'import sys; from captcha_fastai import reader_cli; sys.exit(reader_cli.{words[0]}({[str(o) for o in words[1:]]!r}))'
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, env=dict(os.environ, PYTHONPATH=str(root)), capture_output=True, text=True)

@pytest.mark.parametrize('command', ['train','read','submit','export'])
def test_help_needs_nothing_large(command):
    code = f'''import sys
from captcha_fastai import reader_cli
try: reader_cli.{command}(['--help'])
except SystemExit as e: assert e.code == 0
print([m for m in ('torch','fastai','numpy','PIL','pandas','fastcore') if m in sys.modules])'''
    res = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True)
    assert res.stdout.splitlines()[-1] == '[]' and f'captcha-{command}' in res.stdout

def test_exit_statuses(saved, tmp_path):
    images[0].save(tmp_path/'a.png'); (tmp_path/'b.png').write_bytes(b'x')
    assert [run('read', saved, *o, cwd=tmp_path).returncode for o in (['a.png'], ['nowhere.png'], [])] == [0, 3, 2]
    res = run('read', saved, tmp_path, '--csv', tmp_path/'out.csv')
    assert res.returncode == 3 and "b.png' can't be read as an image" in res.stderr and 'Traceback' not in res.stderr
    assert (tmp_path/'out.csv').read_text().splitlines()[0] == 'file,text,confidence,answered,error'
    assert run('read', tmp_path, 'a.png').returncode == 1 and 'Traceback' in run('read', tmp_path, 'a.png', '--debug').stderr

def test_onnx_command_does_not_import_torch(saved, tmp_path):
    images[0].save(tmp_path/'a.png')
    CaptchaReader.load(saved).to_onnx(tmp_path/'r.onnx')
    code = f"import sys; from captcha_fastai import reader_cli; reader_cli.read([{str(tmp_path/'r.onnx')!r}, {str(tmp_path/'a.png')!r}]); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[-1] == 'False' and out[0].split('\t')[0].endswith('a.png')

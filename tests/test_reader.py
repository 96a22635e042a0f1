"""Learner, reader and ONNX file agree for every architecture; readers survive hostile files; commands start at once and answer with their status."""
import hashlib, inspect, json, os, pickle, shutil, signal, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
import torch
from captcha_fastai.all import CaptchaAugment, CaptchaDataLoaders, RemoveBackground, SynthCaptcha, arch_meta, captcha_learner, crnn, nopool_xresnet, set_seed
from captcha_fastai.inference import CaptchaReader
from captcha_fastai.onnx_reader import OnnxReader
from captcha_fastai.reader_file import ReaderError

root = Path(__file__).parent.parent
synth = SynthCaptcha('0123456789', 4, (60,160), seed=3)
images = [synth[i][0] for i in range(100, 107)]

def learner(arch=nopool_xresnet, size=(32,96), mode='RGB', decoder=None, batch_tfms=None, own_body=False, **arch_args):
    "A learner of random weights, whose batch norm has seen a batch, and so sharp that its texts differ"
    set_seed(0)
    dls = CaptchaDataLoaders.from_synth(synth, 16, 4, size=size, mode=mode, bs=16, batch_tfms=batch_tfms)
    if 'body' in inspect.signature(arch).parameters and not own_body: arch_args = dict(body='small_resnet', **arch_args)
    learn = captcha_learner(dls, arch, arch_args=arch_args, decoder=decoder, weights=False if 'weights' in arch_meta[arch] else None)
    with torch.no_grad(): learn.model.train()(dls.one_batch()[0])
    learn.head.temperature = 0.05
    return learn

def check_same(a, b, eps=1e-4):
    assert [t for t,_ in a] == [t for t,_ in b]
    assert np.abs(np.array([c for _,c in a]) - [c for _,c in b]).max() < eps

def pairs(readings): return [(r.text, r.confidence) for r in readings]

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU here'))]
wishes = {}, dict(length=3), dict(allowed='0123'), dict(length=4, allowed=['01','23','45','67'])

def check_everything(learn, device, folder, images, wishes):
    "predict, reader alone, reader in a batch, saved reader, ONNX file alone and in a batch; free and under constraints"
    reader = CaptchaReader.from_learner(learn, device=device)
    reader.save(folder/'reader'); reader.to_onnx(folder/'reader.onnx')
    onnx,again = OnnxReader(folder/'reader.onnx'),CaptchaReader.load(folder/'reader', device)
    for options in wishes:
        want = [(t,c) for t,_,c in (learn.predict(im, **options) for im in images)]
        check_same(pairs([reader.read(im, **options) for im in images]), want)
        check_same(pairs(reader.read(images, **options)), want)
        check_same(pairs(again.read(images, bs=3, **options)), want)
        check_same(pairs(onnx.read(images, **options)), want)
        check_same(pairs([onnx.read(im, **options) for im in images]), want)
    assert {onnx._forward(reader._pixels(images[:1]*n)).shape[0] for n in (1,3,64)} == {1,3,64}

@pytest.mark.filterwarnings('ignore:This reader has learnt')
@pytest.mark.parametrize('device', devices)
@pytest.mark.parametrize('arch', arch_meta, ids=lambda f: f.__name__)
def test_everything_reads_the_same(arch, device, tmp_path): check_everything(learner(arch, arch_meta[arch]['size']), device, tmp_path, images, wishes)

@pytest.mark.parametrize('device', devices)
@pytest.mark.parametrize('arch', [nopool_xresnet, crnn], ids=lambda f: f.__name__)
def test_bodies_of_the_reference_read_the_same(arch, device, tmp_path):
    "fastai's xresnet34 and torchvision's resnet34, which the two have by themselves"
    check_everything(learner(arch, own_body=True), device, tmp_path, images[:2], wishes[::3])

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

@pytest.mark.parametrize('mode,power', [('RGB',{}), ('L',dict(power=.5))])
def test_the_ground_is_removed_by_every_reader(mode, power, tmp_path):
    "On flat grounds of several colours, and without one: predict, reader, saved reader, ensemble, ONNX file"
    learn = learner(mode=mode, hidden=16, batch_tfms=[RemoveBackground(share=.3, **power), CaptchaAugment()])
    reader = CaptchaReader.from_learner(learn)
    reader.save(tmp_path/'r'); reader.to_onnx(tmp_path/'r.onnx')
    marks = [(np.asarray(im.convert('L')) < 128)[...,None] for im in images]
    flat = [np.where(m, np.uint8(ink), np.uint8(ground)) for m in marks[:3] for ink,ground in (((0,0,0),(255,255,255)), ((250,220,40),(30,140,200)), ((90,20,20),(80,90,80)))]
    items = flat + images
    want = [(t,c) for t,_,c in map(learn.predict, items)]
    for r in (reader, CaptchaReader.load(tmp_path/'r'), CaptchaReader.ensemble([reader, reader]), OnnxReader(tmp_path/'r.onnx')):
        assert r.info['background'] == dict(share=.3, tol=.02, **power)
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

def change(saved, folder, data=None, **fields):
    "A copy of a reader with other fields in its JSON (`arch` and `arch_args`: of its model), and with `data` as weights under a right checksum"
    shutil.copytree(saved, folder)
    info = json.loads((folder/'reader.json').read_text())
    info['models'][0].update({k:fields.pop(k) for k in ('arch','arch_args') if k in fields})
    if data is not None:
        (folder/'model.safetensors').write_bytes(data)
        info['weights'] = dict(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder/'reader.json').write_text(json.dumps({**info, **fields}))
    return folder

def test_a_pickle_bomb_does_not_go_off(saved, tmp_path):
    "In place of the weights with a right checksum, of the JSON, of an ONNX file, as torch saves them, and lying beside"
    class Bomb:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'went off'),)
    bomb,torch_bomb = pickle.dumps(Bomb()),tmp_path/'torch_bomb'
    torch.save(Bomb(), torch_bomb)
    for i,data in enumerate((bomb, torch_bomb.read_bytes())):
        with pytest.raises(ReaderError, match="can't be read"): CaptchaReader.load(change(saved, tmp_path/f'weights{i}', data))
        (bad := change(saved, tmp_path/f'json{i}')/'reader.json').write_bytes(data)
        with pytest.raises(ReaderError, match="can't be read"): CaptchaReader.load(bad.parent)
        (onnx := tmp_path/f'{i}.onnx').write_bytes(data)
        with pytest.raises(ReaderError, match="can't be read"): OnnxReader(onnx)
        beside = change(saved, tmp_path/f'beside{i}')
        for name in ('model.pkl','model.pt','pytorch_model.bin','model.safetensors.pkl'): (beside/name).write_bytes(data)
        assert CaptchaReader.load(beside).read(images[0]) == CaptchaReader.load(saved).read(images[0])
    assert not (tmp_path/'went off').exists()
    pickle.loads(bomb)
    assert (tmp_path/'went off').exists() # it is a bomb

def tensors(header, data=b'', n=None):
    "A safetensors file by hand"
    text = json.dumps(header).encode()
    return (len(text) if n is None else n).to_bytes(8, 'little') + text + data

def hostile(saved, d):
    "Folders and ONNX files that are up to something, and a word of the sentence that refuses each"
    from onnx import TensorProto, helper, load_from_string
    arch,args = 'resnet_transformer',json.loads((saved/'reader.json').read_text())['models'][0]['arch_args']
    deep = lambda **kw: dict(arch=arch, arch_args=kw, size=[32,160])
    one = dict(dtype='F32', shape=[2], data_offsets=[0,8])
    fields = [(deep(n_layers=10**6), 'n_layers'), (deep(n_layers=32_000), 'far more'), (deep(n_layers=32_000, d=4, hidden=4), 'far more parts'), (deep(d=32_768, hidden=32_768), 'far more weights'), (deep(n_heads=-4), "can't be built"),
        (dict(arch='compact_cnn', arch_args=dict(widths=[32_768])), 'more than a reader would make'), (dict(arch_args=dict(body='vit_h_14', cut=1)), "architecture"), (dict(arch_args=dict(body='regnet_y_128gf', cut=1)), 'far more weights'),
        (dict(arch_args={**args, 'hidden':10**30}), 'hidden'), (dict(arch='../../evil'), 'arch'), (dict(arch_args=dict(body='../../evil')), 'body'), (dict(size=[4096,4096]), 'size'), (dict(max_len=10**6), 'max_len'),
        (dict(vocab='0\x1b]0;owned\x07'), 'vocab'), (dict(models=[]), 'models'), (dict(weights=dict(bytes=8, sha256='0'*64, file='../../etc/passwd')), "'file'"), (dict(run='import os'), "'run'"), (dict(lengths=[4]*10**4), 'lengths')]
    files = [(tensors({'a':one}, n=2**62), 'bytes of names'), (tensors({'a':one}, n=2**23+1), 'bytes of names'), (tensors({'a':one}), "can't be read"), (tensors({'a':{**one, 'shape':[2**40, 2**40]}}, bytes(8)), "can't be read"),
        (tensors({'a':one, 'b':one}, bytes(8)), "can't be read"), (tensors({'a':{**one, 'data_offsets':[-8,0]}}, bytes(8)), "can't be read"), (tensors({'../../a':one}, bytes(8)), 'too many'), (b'', 'bytes')]
    cases = [(change(saved, d/f'f{i}', **o), why) for i,(o,why) in enumerate(fields)] + [(change(saved, d/f'w{i}', data), why) for i,(data,why) in enumerate(files)]
    models = json.loads((saved/'reader.json').read_text())['models']
    cases.append((change(saved, d/'many', models=[{**models[0], 'arch_args':dict(body='resnet152', cut=1)}]*64), 'far more'))
    big = change(saved, d/'big', b'12345678')
    os.truncate(big/'model.safetensors', 2**40) # a terabyte that takes no place on the disk
    cases.append((big, 'is not the file'))
    for name in ('model.safetensors','reader.json'):
        shutil.copytree(saved, linked := d/f'link {name}')
        os.replace(linked/name, d/f'out {name}'); (linked/name).symlink_to(f'../out {name}')
        cases.append((linked, 'leads out of the folder'))
    CaptchaReader.load(saved).to_onnx(good := d/'good.onnx')
    def graph(name, f):
        model = load_from_string(good.read_bytes()); f(model)
        (d/name).write_bytes(model.SerializeToString())
        return d/name
    def outside(m): t = m.graph.initializer[0]; t.ClearField('raw_data'); t.data_location = TensorProto.EXTERNAL; t.external_data.add(key='location', value='/etc/passwd')
    def huge(m): m.graph.initializer[0].dims[:] = [2**31, 2**31]
    def loop(m): m.graph.node.append(helper.make_node('Loop', ['n','c'], ['z'], body=helper.make_graph([], 'g', [], [])))
    def outer(m): # a column plus a row: ten terabytes from little
        n = 1_600_000
        for k,s in dict(col=[n,1], row=[1,n]).items(): m.graph.initializer.append(helper.make_tensor(k, TensorProto.FLOAT, s, bytes(4*n), raw=True))
        out = m.graph.node[-1].output[0]; m.graph.node[-1].output[0] = 'before'
        m.graph.node.extend([helper.make_node('Add', ['col','row'], ['all']), helper.make_node('ReduceMax', ['all'], ['most'], keepdims=0), helper.make_node('Add', ['before','most'], [out])])
    def metadata(m): m.metadata_props[0].value = '{"a":' + ' '*2**23 + '1}'
    return cases + [(graph(f'{f.__name__}.onnx', f), why) for f,why in ((outside, 'other files'), (huge, 'a tensor says'), (loop, 'a graph within'), (outer, 'more memory'), (metadata, 'more than a reader'))]

def test_hostile_files_are_refused(saved, tmp_path):
    "Each by a sentence, in a process that may take 3 GB more than it has after loading a good reader, and two minutes of a processor"
    cases = [(str(o), why) for o,why in hostile(saved, tmp_path)]
    images[0].save(im := tmp_path/'a.png')
    code = f"""
import resource, sys
from captcha_fastai.reader_cli import load_reader
from captcha_fastai.reader_file import ReaderError
from pathlib import Path
for o in ({str(saved)!r}, {str(tmp_path/'good.onnx')!r}): load_reader(Path(o)).read({str(im)!r})
now = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize() if sys.platform == 'linux' else 0
if now: resource.setrlimit(resource.RLIMIT_AS, (now+3*2**30,)*2); resource.setrlimit(resource.RLIMIT_CPU, (120,)*2)
for path,why in {cases!r}:
    try: load_reader(Path(path)).read({str(im)!r})
    except ReaderError as e: assert why in str(e) and len(str(e)) < 600 and '\\n' not in str(e), (path, why, str(e))
    else: raise AssertionError(path + ' was read')
print('all refused')"""
    res = subprocess.run([sys.executable, '-c', code], cwd=root, env=dict(os.environ, OMP_NUM_THREADS='2'), capture_output=True, text=True)
    assert res.stdout.endswith('all refused\n'), res.stderr[-3000:]

def test_a_killed_replacement_leaves_a_reader(saved, tmp_path):
    "A process that replaces a reader is killed at each of its renamings: what is there loads, as the old or as the new one"
    def state(folder): r = CaptchaReader.load(folder); return r.threshold, r.read(images[0])
    new = CaptchaReader({**CaptchaReader.load(saved).info, 'threshold':.75}, {k:v.flip(0) for k,v in CaptchaReader.load(saved).state_dict().items()})
    new.save(tmp_path/'new'); shutil.copytree(saved, tmp_path/'reader')
    old,new = state(saved),state(tmp_path/'new')
    code = """
import os, signal, sys
from captcha_fastai.reader_file import read_reader, write_reader
replace,left = os.replace,int(sys.argv[3])
def last(*args):
    global left
    if not left: os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*args)
os.replace = last
info,weights = read_reader(sys.argv[1])
write_reader(sys.argv[2], info, weights)"""
    for n,want in enumerate((old, old, new, new)):
        res = subprocess.run([sys.executable, '-c', code, str(tmp_path/'new'), str(tmp_path/'reader'), str(n)], cwd=root)
        assert res.returncode == (0 if n == 3 else -signal.SIGKILL) and state(tmp_path/'reader') == want
    assert sorted(o.name for o in (tmp_path/'reader').iterdir() if not o.name.startswith('.')) == ['model.safetensors','reader.json']

@pytest.mark.parametrize('name', ['reader.json','model.safetensors'])
def test_truncated_files_are_noticed(saved, tmp_path, name):
    data = (saved/name).read_bytes()
    for n in (0, 1, len(data)//2, len(data)-1):
        shutil.copytree(saved, bad := tmp_path/str(n))
        (bad/name).write_bytes(data[:n])
        if name == 'reader.json' and n == len(data)-1: continue # only the newline at its end is missing
        with pytest.raises(ReaderError, match=name): CaptchaReader.load(bad)

def test_every_field_is_checked(saved, tmp_path):
    "Each field of the JSON, replaced by values of other kinds: a ReaderError or a reader, never anything else"
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

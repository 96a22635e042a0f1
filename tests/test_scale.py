"""Several processes train as one; a Dask cluster that loses a worker makes the same bytes; packed sets are read from any address."""
import hashlib, importlib.util, json, os, shutil, signal, socket, subprocess, sys, threading
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from helpers import until

root = Path(__file__).resolve().parent.parent
programs = Path(sys.executable).parent

def needs(*packages):
    lacks = [p for p in packages if importlib.util.find_spec(p) is None]
    return pytest.mark.skipif(bool(lacks), reason=f"needs {', '.join(lacks)}: pip install -e '.[dev]'")

def env(**more): return {**os.environ, 'PATH': f"{programs}{os.pathsep}{os.environ['PATH']}", 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONWARNINGS': 'ignore', **more}

def launch(*words, n=2, cwd=None, meanwhile=None):
    "What `accelerate launch` with `n` processes answers: its exit status, stdout and stderr. `meanwhile` is called with the process."
    cmd = ['accelerate', 'launch', '--multi_gpu', '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no', '--num_processes', str(n), '--main_process_port', '0', *map(str, words)]
    p = subprocess.Popen(cmd, cwd=cwd, env=env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if meanwhile: meanwhile(p)
    out, err = p.communicate(timeout=600)
    return p.returncode, out, err


# ---- training

JOB = """
import json, os, signal, sys
import torch; torch.set_num_threads(1)
from captcha_fastai.all import *
out, deadly, wrote = Path(sys.argv[1]), 'die' in sys.argv, []
def note(event, args): # every file that Python opens to write
    if event == 'open' and args[2] & (os.O_WRONLY|os.O_RDWR) and str(args[0]).startswith(str(out)): wrote.append(args[0])
sys.addaudithook(note)
world, rank = start_processes(), rank_distrib()
set_seed(0, reproducible=True)
synth = SynthCaptcha('0123', 2, (32,48), seed=1)
# 72 is no multiple of 16, and 37 is odd: no share is even, and nothing may be counted twice
dls = CaptchaDataLoaders.from_synth(synth, n=72, valid=37, bs=16, batch_tfms=[], drop_last=False, online=True, path=out/str(rank)) # what others than the first might write shows
def body(pretrained=False):
    block = lambda i,o: nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    return nn.Sequential(block(3,16), block(16,32), block(32,32))
class Watch(Callback):
    "Notes what this process is taught"
    order,seen = 9,[]
    def before_batch(self):
        if self.training: self.seen.extend(hashlib.md5(to_np(x).tobytes()).hexdigest() for x in self.x)
    def after_batch(self):
        if deadly and self.training and self.train_iter == 6 and rank == 1: os.kill(os.getpid(), signal.SIGKILL)
learn = captcha_learner(dls, nopool_xresnet, arch_args=dict(body=body, hidden=32, ps=0.)) # no dropout, no augmentation: nothing is left to chance
with learn.no_bar(), learn.no_logging():
    with learn.distrib_ctx():
        learn.fit_one_cycle(2, 5e-3, cbs=[Watch(), Resumable(out/f'training-{world}', every=0)])
        res = dict(losses=[float(o) for o in learn.recorder.losses], values=[list(map(float, v)) for v in learn.recorder.values], seen=Watch.seen, running=[float(o) for k,v in learn.model.state_dict().items() if 'running' in k for o in v])
        learn.offline_online(synth, dict(opt='adam', bs=8, wd=0., cycle=False, offline=dict(n=16, n_epoch=3, lr=1e-3, learnt=0.), online=dict(n=16, n_epoch=1, lr=1e-3)), valid=9, name=f'by-{world}')
    if rank == 0: res['alone'] = list(learn.validate()) # the first process on its own; nobody waits for anybody
if world > 1: # what is called when Python ends
    from captcha_fastai.distributed import _leave_group
    names = lambda: sorted(o.read_text().strip() for o in Path('/proc/self/task').glob('*/comm'))
    res['threads'] = [names()]; _leave_group(); res['threads'].append(names())
out.joinpath(f'{world}-{rank}.json').write_text(json.dumps(dict(res, wrote=wrote[:], norms=[type(m).__name__ for m in learn.model.modules() if 'Norm' in type(m).__name__])))
"""

@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    "The same script with one process and with two; once for all processes that test."
    out = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: out = out.parent
    out = out/'trained'; out.mkdir(exist_ok=True)
    with FileLock(out/'lock'):
        if not (out/'done').exists():
            (out/'job.py').write_text(JOB)
            one = subprocess.Popen([sys.executable, out/'job.py', out], env=env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            status, _, err = launch(out/'job.py', out)
            said, _ = one.communicate(timeout=600)
            assert one.returncode == 0, said[-3000:]
            assert status == 0, err[-3000:]
            (out/'done').touch()
    load = lambda name: json.loads((out/f'{name}.json').read_text())
    return out, load('1-0'), load('2-0'), load('2-1')

@needs('accelerate')
def test_two_processes_train_as_one(trained):
    "Same batches, same losses within float32 rounding, which grows from step to step; the first steps agree to six digits."
    _, one, a, b = trained
    assert len(one['losses']) == 10 and a['losses'] == b['losses']
    assert np.allclose(one['losses'][:3], a['losses'][:3], rtol=1e-5), (one['losses'], a['losses'])
    assert np.allclose(one['losses'], a['losses'], rtol=2e-3)
    assert np.allclose(one['running'], a['running'], rtol=5e-2, atol=5e-2) and a['running'] == b['running'] # batch normalisation counts the whole batch
    assert set(a['norms']) <= {'BatchNorm1d', 'BatchNorm2d'} # afterwards the model is what it was

@needs('accelerate')
def test_metrics_are_exact(trained):
    "37 images over two processes, 19 and 18: shares of 37 come out, in both."
    _, one, a, b = trained
    assert a['values'] == b['values']
    for row, ref in zip(a['values'], one['values']):
        assert row[2:] == pytest.approx(ref[2:], abs=2/37 + 1e-9) and row[1] == pytest.approx(ref[1], rel=2e-3) # a rounding may turn one captcha
        assert abs(row[2]*37 - round(row[2]*37)) < 1e-9 and abs(row[3]*74 - round(row[3]*74)) < 1e-9

@needs('accelerate')
def test_no_sample_twice(trained):
    "Online, two processes are taught what one would be, and no captcha comes twice."
    _, one, a, b = trained
    assert len(one['seen']) == len(set(one['seen'])) == 144
    assert not set(a['seen']) & set(b['seen']) and len(a['seen']) == len(b['seen']) == 72
    assert set(a['seen']) | set(b['seen']) == set(one['seen'])

@needs('accelerate')
@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='threads have no names here')
def test_no_thread_outlives_python(trained):
    "PyTorch's threads by which processes meet abort a process that ends before they do."
    for before, after in (o['threads'] for o in trained[2:]):
        assert any('gloo' in o for o in before) and not any('gloo' in o for o in after), (before, after)

@needs('accelerate')
def test_one_process_writes(trained):
    "Checkpoints and weights are the first one's; the other opens no file to write, and PyTorch writes none for it."
    out, _, a, b = trained
    assert sorted(o.name for o in (out/'0'/'models').iterdir()) == [f'by-{n}_{s}.pth' for n in (1, 2) for s in ('offline', 'online')]
    assert any('fit-0.ckpt' in o for o in a['wrote']) and b['wrote'] == [] and not [o for o in (out/'1').rglob('*') if o.is_file()]
    assert 'alone' in a and 'alone' not in b

def pair(out, *words):
    "Two machines, so to speak, with a process each: their exit statuses, and what they said."
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    where = dict(WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    ps = [subprocess.Popen([sys.executable, out/'job.py', out, *words], env=env(RANK=str(r), **where), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for r in (0, 1)]
    said = [p.communicate(timeout=600)[1] for p in ps]
    return [p.returncode for p in ps], said

@needs('accelerate')
def test_a_dead_process_ends_the_job_and_it_goes_on(trained, tmp_path):
    "One of two is killed: the other does not wait for it. Started again, they go on, and end as if nothing had happened; so does one alone."
    (tmp_path/'job.py').write_text(JOB)
    status, said = pair(tmp_path, 'die')
    assert status[0] > 0 and status[1] == -signal.SIGKILL and not list(tmp_path.glob('*.json'))
    assert 'Process 0 of 2 has lost the others in the middle of the training' in said[0], said[0][-3000:]
    shutil.copytree(tmp_path/'training-2', tmp_path/'training-1') # and one process goes on alone, as if a machine were gone for good
    one = subprocess.Popen([sys.executable, tmp_path/'job.py', tmp_path], env=env(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    status, said = pair(tmp_path)
    assert status == [0, 0], said
    said = one.communicate(timeout=600)[1]
    assert one.returncode == 0, said[-3000:]
    assert np.allclose(json.loads((tmp_path/'1-0.json').read_text())['losses'], trained[2]['losses'], rtol=2e-3)
    a, b = (json.loads((tmp_path/f'2-{r}.json').read_text()) for r in (0, 1))
    assert (a['losses'], a['running']) == (b['losses'], b['running']) == (trained[2]['losses'], trained[2]['running']) and a['values'] == trained[2]['values']
    assert len(a['seen']) == len(b['seen']) < 72 and not set(a['seen']) & set(b['seen']) # from the seventh batch of ten on, and nothing twice
    assert set(a['seen']) | set(b['seen']) <= set(trained[1]['seen'])

@needs('accelerate')
def test_the_command_with_two_processes(tmp_path):
    "`accelerate launch … captcha-train …`: when a process is killed, the job ends and says why. The same command goes on: one voice, one reader, the batch of the command line."
    import psutil
    from captcha_fastai.folder import generate_folder
    from captcha_fastai.synth import SynthCaptcha
    generate_folder(tmp_path/'drawn', 40, SynthCaptcha('01', 2, (32,48), seed=1), progress=False)
    words = '--no_python', 'captcha-train', 'drawn', '-o', 'reader', '--arch', 'nopool_xresnet', '--epochs', 1, '--bs', 64, '--warm', 32
    started = []
    def kill_one(p):
        until(lambda: p.poll() is not None or (tmp_path/'reader'/'training'/'fit-1.ckpt').exists(), 200, .01) # the warm start is over
        started.extend(o for o in psutil.Process(p.pid).children(recursive=True) if 'captcha-train' in ' '.join(o.cmdline()))
        next(o for o in started if o.environ()['RANK'] == '1').kill()
    status, out, err = launch(*words, cwd=tmp_path, meanwhile=kill_one)
    assert status and 'the reader is in' not in out and not (tmp_path/'reader'/'reader.json').exists()
    assert 'SIGKILL' in err and 'captcha-train FAILED' in err, err[-3000:]
    assert len(started) == 2 and not any(o.is_running() for o in started)
    status, out, err = launch(*words, cwd=tmp_path)
    assert status == 0, err[-3000:]
    assert out.count('this training is finished') == out.count('going on from epoch') == 1 # the warm start, and the other
    assert out.count('images to learn from') == out.count('the reader is in') == 1 and 'accuracy ' in out
    assert sorted(o.name for o in (tmp_path/'reader').iterdir()) == ['curve.png', 'model.safetensors', 'reader.json']


# ---- a cluster

def contents(path): return {str(o.relative_to(path)): hashlib.sha256(o.read_bytes()).hexdigest() for o in Path(path).rglob('*') if o.is_file()}

@pytest.fixture(scope='module')
def cluster():
    "Two workers, one thread each, with nannies that start them again."
    from distributed import LocalCluster
    old = dict(os.environ); os.environ.update(env())
    try:
        with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as c: yield c
    finally: os.environ.clear(); os.environ.update(old)

def in_thread(f):
    "Runs `f` beside the test; `join()` answers what it answered, or raises what it raised."
    res = {}
    def _run():
        try: res['ok'] = f()
        except BaseException as e: res['bad'] = e
    t = threading.Thread(target=_run); t.start()
    def join():
        t.join(200)
        assert not t.is_alive(), 'it goes on for ever'
        if 'bad' in res: raise res['bad']
        return res['ok']
    return join

@needs('distributed', 'pyarrow')
def test_a_lost_worker_changes_nothing(cluster, tmp_path):
    "Half-way through, one of two workers is killed: its part is made again, and the folder is byte for byte that of one process."
    from captcha_fastai.pack import pack
    from captcha_fastai.synth import SynthCaptcha
    synth = SynthCaptcha('aAbBcC12', (2,5), (160,400), 'competition', seed=4)
    join = in_thread(lambda: pack(tmp_path/'two', synth, n=960, of=48, dask=cluster.scheduler_address, progress=False))
    until(lambda: len(list((tmp_path/'two').glob('*.arrow'))) > 4, 100, .005)
    pids = [w.process.pid for w in cluster.workers.values()]
    os.kill(pids[0], signal.SIGKILL)
    made = len(list((tmp_path/'two').glob('*.arrow')))
    packed = join()
    assert made < 48, 'all was done before the worker was killed'
    pack(tmp_path/'one', synth, n=960, of=48, progress=False)
    assert contents(tmp_path/'two') == contents(tmp_path/'one')
    assert packed.verify()[959] == synth[959]

@needs('distributed', 'pyarrow')
def test_folders_on_a_cluster(cluster, tmp_path, capsys):
    "So is a folder of images, with its manifest; and one by several processes of this machine."
    from captcha_fastai.all import LabelledFolder, SynthCaptcha, generate_folder
    from captcha_fastai.synth_cli import main
    synth = SynthCaptcha('01', 2, (120,300), 'competition')
    words = ['--chars', '01', '--length', '2', '--size', '120x300', '--style', 'competition']
    join = in_thread(lambda: main(['folder', str(tmp_path/'two'), '-n', '320', '--dask', cluster.scheduler_address, *words]))
    until(lambda: len(list((tmp_path/'two').glob('*.png'))) > 70, 100, .005)
    os.kill(list(cluster.workers.values())[0].process.pid, signal.SIGKILL)
    assert not (tmp_path/'two'/'index.json').exists(), 'all was done before the worker was killed'
    assert join() == 0 and '100% Completed' in capsys.readouterr().out
    generate_folder(tmp_path/'one', 320, synth, progress=False)
    generate_folder(tmp_path/'here', 320, synth, workers=2, progress=False)
    assert contents(tmp_path/'two') == contents(tmp_path/'one') == contents(tmp_path/'here')
    assert len(LabelledFolder(tmp_path/'two').verify()) == 320

@needs('distributed', 'pyarrow')
def test_evaluations_on_a_cluster(cluster, tmp_path, capsys):
    "Readings, too, are the same bytes."
    from captcha_fastai.all import CaptchaDataLoaders, CaptchaReader, SynthCaptcha, captcha_learner, evaluate, pack, set_seed
    from captcha_fastai.synth_cli import main
    pack(tmp_path/'packed', SynthCaptcha('01', 2, (32,48)), n=120, of=4, progress=False)
    set_seed(0)
    CaptchaReader.from_learner(captcha_learner(CaptchaDataLoaders.from_packed(tmp_path/'packed', seed=0), arch_args=dict(body='small_resnet', hidden=8))).save(tmp_path/'reader')
    evaluate(tmp_path/'e1', tmp_path/'reader', tmp_path/'packed', progress=False)
    assert main(['evaluate', str(tmp_path/'e2'), str(tmp_path/'reader'), str(tmp_path/'packed'), '--dask', cluster.scheduler_address, '--quiet']) == 0
    assert capsys.readouterr().out.startswith('accuracy ')
    assert contents(tmp_path/'e2') == contents(tmp_path/'e1') and main(['verify', str(tmp_path/'e2')]) == 0

@needs('distributed')
def test_cancelled_or_lost():
    "Two clients of a real scheduler: what one cancels, the other calls cancelled; the scheduler killed, it calls it lost."
    from distributed import Client, Future
    from captcha_fastai.parts import run_on_dask
    with subprocess.Popen(['dask', 'scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard'], env=env(), stderr=subprocess.PIPE, text=True) as p:
        try:
            address = next(l.split()[-1] for l in p.stderr if 'Scheduler at:' in l)
            client, other = (Client(address, set_as_default=False) for _ in range(2))
            def begun():
                "A job that waits for workers, and its keys"
                join = in_thread(lambda: run_on_dask(pow, (2,), [1, 2], client, progress=False))
                return join, until(lambda: other.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)))
            join, keys = begun()
            other.cancel([Future(k, other) for k in keys], force=True)
            with pytest.raises(RuntimeError, match='has been cancelled on the Dask scheduler'): join()
            join, _ = begun()
            p.kill()
            with pytest.raises(ConnectionError, match='has been lost'): join()
        finally: p.kill()

@needs('distributed', 'pyarrow')
def test_workers_must_draw_alike(cluster, tmp_path):
    "A worker whose versions differ refuses, in a sentence that names it and the version."
    from captcha_fastai.parts import run_on_dask
    from captcha_fastai.synth import SynthCaptcha
    with pytest.raises(ValueError, match='would not make the same as others: versions.pillow'):
        run_on_dask(pow, (2,), [1], cluster.scheduler_address, same=(other_pillow, os.getpid()), progress=False)

def other_pillow(pid): return dict(versions=dict(pillow='13.0.0' if os.getpid() == pid else '12.0.0'))

"""From one process to two: drawing, training and evaluating; and the constants of the cost model of the page *At scale*.

    python benchmarks/scale.py [--short] [--out FILE]

It takes some seven minutes on two cores. Wall time tells how it scales; it means something on a quiet machine only, so the load is noted. Processor time tells what an image costs, also on a busy one. What it takes to start is measured
by a run with next to no images, and taken off. Drawing and evaluating are done by `pack` and `evaluate` with one and two processes; training by `accelerate launch`, from packed images, one thread each, with a batch of 64 for all.
"""
import argparse, json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path
from captcha_fastai.evaluate import evaluate
from captcha_fastai.pack import Packed, pack
from captcha_fastai.parts import run_on_dask
from captcha_fastai.synth import SynthCaptcha

results = Path(__file__).parent/'results'

SYNTH, BS, PROCESSES = SynthCaptcha('0123456789', 4, (60,160), 'image_captcha', 0), 64, (1, 2)

def cpu():
    "Seconds of processor time of this process and of those that it has waited for."
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

def cost(f):
    "Wall and processor seconds of `f()`."
    wall, used = time.perf_counter(), cpu()
    f()
    return time.perf_counter()-wall, cpu()-used

def row(p, n, whole, start):
    "What `n` images took: both costs are (wall, cpu), and `start` is of a run with next to nothing to do."
    wall, used = whole[0]-start[0], whole[1]-start[1]
    if used <= 0: raise ValueError(f'{n} images took less processor time than the start alone; run it on a quieter machine, or with more images.')
    return dict(processes=p, n=n, seconds=round(whole[0], 2), start_seconds=round(start[0], 2), per_s=round(n/wall, 1) if wall > 0 else None, per_cpu_s=round(n/used, 1))

def drawing(tmp, n):
    rows = []
    for p in PROCESSES:
        start = cost(lambda: pack(tmp/f'start {p}', SYNTH, n=8*p, of=p, workers=p, progress=False))
        rows.append(row(p, n-8*p, cost(lambda: pack(tmp/f'packed {p}', SYNTH, n=n, of=8, workers=p, progress=False)), start))
    return rows

def evaluating(tmp, packed, reader):
    rows = []
    for p in PROCESSES:
        few = pack(tmp/f'few {p}', SYNTH, n=8*p, of=p, progress=False)
        start = cost(lambda: evaluate(tmp/f'evaluation of few {p}', reader, few.path, workers=p, progress=False))
        rows.append(row(p, packed.n-8*p, cost(lambda: evaluate(tmp/f'evaluation {p}', reader, packed.path, workers=p, progress=False)), start))
    return rows

def train(packed, out, steps):
    "In each process of `accelerate launch`: train for `steps` batches, the first five of which don't count."
    import torch; torch.set_num_threads(1)
    from captcha_fastai.all import Callback, CancelFitException, CaptchaDataLoaders, CaptchaReader, captcha_learner, nopool_xresnet, num_distrib, rank_distrib, set_seed, start_processes
    start_processes(); set_seed(0)
    dls = CaptchaDataLoaders.from_packed(packed, seed=0, bs=BS)
    learn = captcha_learner(dls, nopool_xresnet, arch_args=dict(body='small_resnet', hidden=256))
    class Clock(Callback):
        at = []
        def after_batch(self):
            if not self.training: return
            self.at.append((time.perf_counter(), time.process_time()))
            if len(self.at) == steps: raise CancelFitException
    with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(): learn.fit(10**6, 1e-3, cbs=Clock())
    if rank_distrib(): return
    (w0,c0),(w1,c1) = Clock.at[4],Clock.at[-1]
    n, p = BS*(steps-5), max(1, num_distrib())
    (out/f'training-{p}.json').write_text(json.dumps(dict(processes=p, n=n, seconds=round(w1-w0, 2), per_s=round(n/(w1-w0), 1), per_cpu_s=round(n/((c1-c0)*p), 1), parameters=sum(o.numel() for o in learn.model.parameters()))))
    if p == 1: CaptchaReader.from_learner(learn).save(out/'reader')

def training(tmp, packed, steps):
    words = [__file__, '--train', str(packed.path), '--tmp', str(tmp), '--steps', str(steps)]
    launch = ['-m', 'accelerate.commands.launch', '--multi_gpu', '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no', '--num_processes', '2', '--main_process_port', '0']
    for cmd in ([], launch): subprocess.run([sys.executable, *cmd, *words], check=True, env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore'))
    return [json.loads((tmp/f'training-{p}.json').read_text()) for p in PROCESSES]

def per_part(n):
    "Seconds that a part costs Dask, on two workers of this machine, when there is nothing to do."
    from distributed import LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as c:
        run_on_dask(pow, (2,), list(range(20)), c.scheduler_address, progress=False)
        return cost(lambda: run_on_dask(pow, (2,), list(range(n)), c.scheduler_address, progress=False))[0]/n

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('--short', action='store_true', help='few images: does it run?')
    a('--out', type=Path, default=results/'scale.json', help='where to write the results')
    a('--steps', type=int, help='batches to train for'); a('--train', help=argparse.SUPPRESS); a('--tmp', type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.train: return train(args.train, args.tmp, args.steps)
    from common import save_json, where # here, for it imports torch, which the processes that draw would have to wait for
    n, steps = (1024, args.steps or 15) if args.short else (20_480, args.steps or 125)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        drawn = drawing(tmp, n); print(drawn, flush=True)
        packed = Packed(tmp/'packed 1')
        trained = training(tmp, packed, steps); print(trained, flush=True)
        read = evaluating(tmp, packed, tmp/'reader'); print(read, flush=True)
        files = packed.index['files']
        bytes_, note = sum(o['bytes'] for o in files)/n, (packed.path/'index.json').stat().st_size/len(files)
        out = dict(what='images per second with one process and with two, and what an image costs', short=args.short, size=list(SYNTH.size), channels=3, length=list(SYNTH.length), style=SYNTH.style.name, bs=BS, seed=0, load_average=load,
                   drawing=drawn, training=trained, evaluating=read,
                   constants=dict(draw_per_cpu_s=drawn[0]['per_cpu_s'], train_per_cpu_s=trained[0]['per_cpu_s'], evaluate_per_cpu_s=read[0]['per_cpu_s'], bytes_per_image=round(bytes_, 1), note_bytes=round(note), start_seconds=max(o['start_seconds'] for o in drawn+read), part_seconds=round(per_part(100 if args.short else 1000), 5)),
                   **where('captcha', 'pillow', 'numpy', 'pyarrow', 'accelerate', 'distributed'))
    save_json(args.out, out); print(out['constants']) # all of it, at the end

if __name__ == '__main__': main()

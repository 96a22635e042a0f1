"""Trainings by the recipes of the systems A, C and D: what their scripts share.

A training (row, seed) goes through its steps. After each epoch all that is needed to go on is kept in `cache/`, so a script that is stopped, or that stops
by itself after `--minutes`, goes on where it was when it is started again. `--n` and `--epochs` cut everything short; such rows say so and are kept apart."""
import argparse, json, time
import torch
from captcha_fastai.all import *
from common import cache, chars_right, digest, load_json, results, save_json, where, wilson

class Paused(Exception): "The time is up; the training can go on later."

class KeepAll(Callback):
    "Keep model, optimizer and curve after every epoch; leave when the time is up."
    order = 60 # after the recorder
    def __init__(self, file, done, stop_at): self.file,self.done,self.stop_at = file,done,stop_at
    def before_fit(self): self.begun = time.time()
    def after_epoch(self):
        if self.epoch < self.done['epochs']: return # skipped: an earlier session did it
        now = time.time()
        self.done['curve'].append([float(f'{o:.5g}') for o in self.recorder.values[-1]])
        self.done.update(epochs=self.epoch+1, seconds=self.done['seconds']+now-self.begun)
        self.begun = now
        new = self.file.with_name(f'{self.file.stem}-{self.epoch+1}.pth')
        save_model(new, self.learn.model, self.learn.opt)
        save_json(self.file, self.done)
        new.with_name(f'{self.file.stem}-{self.epoch}.pth').unlink(missing_ok=True)
        print(f"epoch {self.epoch+1}: {self.done['curve'][-1]}, {self.done['seconds']/60:.1f} min", flush=True)
        if self.stop_at and now > self.stop_at and self.epoch+1 < self.n_epoch: raise Paused('the time is up')

def train(learn, file, step, seed, stop_at=None):
    "Fit by `step`, from where the last session left; epochs, curve and seconds."
    plain = json.loads(json.dumps(step)) # as the file has it
    done = load_json(file, dict(step=plain, epochs=0, curve=[], seconds=0., sessions=0))
    if done.get('step', plain) != plain: raise ValueError(f"{file} is of another step, {done['step']}, not {step}; delete {file.parent} to begin anew.")
    if done['epochs']:
        learn.create_opt()
        load_model(file.with_name(f"{file.stem}-{done['epochs']}.pth"), learn.model, learn.opt, device=learn.dls.device)
    if done['epochs'] == step['n_epoch']: return done
    done['sessions'] += 1
    set_seed(1000*seed + done['epochs'], reproducible=True)
    if step['online']: learn.dls.train.passes = done['epochs'] - 1
    fit = learn.fit_one_cycle if step['schedule'] == 'one_cycle' else learn.fit
    with learn.no_bar(), learn.no_logging(): fit(step['n_epoch'], step['lr'], wd=step['wd'], start_epoch=done['epochs'], cbs=KeepAll(file, done, stop_at))
    return done

def tfms(row): return [tfm(**row[o]) for o,tfm in dict(background=RemoveBackground, swap=SwapCharacters, augment=CaptchaAugment).items() if row.get(o) is not None]

def synth_loaders(data, row, step, n, valid, workers):
    "DataLoaders of drawn captchas: fresh ones, or a packed set that is drawn once."
    synth = SynthCaptcha(**data)
    if not step['online']: synth = pack(cache/f"packed-{data['style']}-{valid+n}", synth, valid+n, workers=workers, progress=False)
    return CaptchaDataLoaders.from_synth(synth, n, valid, step['online'], vocab=data['chars'], max_len=data['length'], size=step.get('size', row['size']), batch_tfms=tfms(row), bs=step['bs'], num_workers=workers)

def synth_test(data, n):
    "`n` drawn captchas that no training has seen: those of another seed."
    return CaptchaDataLoaders.from_synth(SynthCaptcha(**dict(data, seed=f"{data['seed']} test")), n=1, valid=n, vocab=data['chars'], max_len=data['length'], bs=1).valid_ds

def make_learner(dls, row):
    arch = globals()[row['arch']]
    loss = None if arch_meta[arch]['head'] == 'ctc' else PositionCrossEntropyLoss(dls.vocab, label_smoothing=row['label_smoothing'])
    return captcha_learner(dls, arch, normalize=row['normalize'], arch_args=row['arch_args'], loss_func=loss, opt_func=partial(Adam, **row['opt']) if row['opt'] else FusedAdam)

def readings(learn, dl):
    "Labels, texts and confidences of everything in `dl`."
    with learn.no_bar(): logits,targs = learn.get_preds(dl=dl, act=noop)
    hyps,decode = [h[0] for h in learn.head.decode(learn.head.log_probs(to_np(logits)))], learn.vocab.decode
    return pd.DataFrame(dict(label=[decode(t) for t in targs], text=[decode(h.ids) for h in hyps], confidence=[math.exp(h.log_prob) for h in hyps]))

def packed_predictions(df):
    "One text for each column: a JSON file with 23,550 readings stays small."
    return dict(labels=' '.join(df.label), texts=' '.join(o or '∅' for o in df.text), confidences=' '.join(f'{o:.4f}' for o in df.confidence))

def run_row(name, key, row, seed, args, loaders, test):
    "Train by the row's steps, read the test images, and answer the row for the results; None if the time is up."
    home,weights,steps,bf16 = cache/args.system/key,None,[],args.bf16 and not row.get('reference',False)
    home.mkdir(parents=True, exist_ok=True)
    for k,step in enumerate(row['steps']):
        step = dict(step, n_epoch=args.epochs or step['n_epoch'])
        n = min(args.n or step['n'], step['n'])
        set_seed(seed, reproducible=True)
        learn = make_learner(dls := loaders(row, step, n, seed), row)
        if weights: learn.load_weights(weights, with_opt=step.get('keep_opt', False))
        if bf16: learn.to_bf16()
        try: done = train(learn, home/f'step{k}.json', step, seed, args.stop_at)
        except Paused: return None
        steps.append(dict(step, n_used=n, minutes=round(done['seconds']/60, 2), sessions=done['sessions'], curve=dict(columns=['train_loss','valid_loss','captcha_accuracy','char_accuracy','cer'], epochs=done['curve'])))
        learn.save_weights(weights := home/f'step{k}.safetensors', with_opt=True)
    df = readings(learn, test(learn, seed))
    right = df.text == df.label
    low,high = wilson(right.sum(), len(df))
    return dict(key=key, name=name, arch=row['arch'], seed=seed, short=bool(args.n or args.epochs), n=len(df), right=int(right.sum()), captcha_accuracy=round(100*right.mean(), 3), low=low, high=high,
                char_accuracy=round(100*chars_right(df.label, df.text), 3), parameters=sum(p.numel() for p in learn.model.parameters()), minutes=round(sum(s['minutes'] for s in steps), 1), recipe={k:v for k,v in row.items() if k != 'steps'}, loss=type(learn.loss_func).__name__, start=digest(base_file) if 'weights' in arch_meta[learn.arch] else None,
                size=list(dls.size), mode='RGB', bf16=bf16, steps=steps, predictions=packed_predictions(df), threads=torch.get_num_threads(), **where('captcha','pillow'))

def main(system, recipe, doc, loaders, test):
    "The command line of a system's script; `loaders(row, step, n, seed, args)` and `test(row, learn, seed, args)` are its data."
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('--rows', nargs='*', default=list(recipe['rows']), help='rows of the recipe (default: all)')
    a('--seeds', nargs='*', type=int, default=[0], help='seeds of the training, and of the split of real images')
    a('--n', type=int, help='at most so many training images in an epoch, and so many test images')
    a('--epochs', type=int, help='so many epochs in every step')
    a('--minutes', type=float, help='stop after the epoch in which the time is up; start again to go on')
    a('--threads', type=int, help='threads of torch (default: as many as cores)')
    a('--workers', type=int, default=min(16, defaults.cpus) if torch.cuda.is_available() else 0, help='processes that draw and load')
    a('--bf16', action='store_true', help='bfloat16 for all rows but those of the reference')
    a('--out', type=Path, default=results/f'{system}.json', help='file of the results; rows that are there stay')
    args = p.parse_args()
    args.system,args.stop_at = system,args.minutes and time.time()+60*args.minutes
    if args.threads: torch.set_num_threads(args.threads)
    for name in args.rows:
        if name not in recipe['rows']: p.error(f'there is no row {name!r}; there are {", ".join(map(repr, recipe["rows"]))}')
    for name,seed in ((name, seed) for seed in args.seeds for name in args.rows):
        row,key = recipe['rows'][name], f'{name}, seed {seed}' + (f', n {args.n}' if args.n else '') + (f', {args.epochs} epochs' if args.epochs else '')
        old = load_json(args.out, dict(rows=[]))['rows']
        if any(r['key'] == key for r in old): continue
        print(key, flush=True)
        new = run_row(name, key, row, seed, args, lambda *o: loaders(*o, args), lambda *o: test(row, *o, args))
        if new is None: print('the time is up; start again to go on'); break
        rows = [r for r in load_json(args.out, dict(rows=[]))['rows'] if r['key'] != key] + [new]
        save_json(args.out, dict(rows=rows))
        print(f"{key}: {new['right']} of {new['n']}, {new['captcha_accuracy']} % ({new['low']}–{new['high']})", flush=True)

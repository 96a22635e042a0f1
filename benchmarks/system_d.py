"""System D: captchas of one, two and four characters, drawn by `ImageCaptcha`; fresh ones in every epoch of a step, 10,000 of another seed to test.

The weights of each task are left in `cache/system_d/ROW/stepK.safetensors`; the last step counts."""
from captcha_fastai.recipes import system_d
from training import main, synth_loaders, synth_test

def loaders(row, step, n, seed, args): return synth_loaders(system_d['data'][step['data']], row, step, n, min(args.n or system_d['valid'], system_d['valid']), args.workers)

def test(row, learn, seed, args): return learn.dls.valid.new(synth_test(system_d['data'][row['steps'][-1]['data']], min(args.n or 10**9, system_d['test'])))

if __name__ == '__main__': main('system_d', system_d, __doc__, loaders, test)

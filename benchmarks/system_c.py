"""System C: two small nets read four of 36 characters on colourful grounds, trained by the library's recipes and as the reference trained them.

The captchas are drawn in the style `photo_serif`, a stand-in: of the reference's 31,550 real ones only six can be had. 7,200 images to train, 800 to
validate, 23,550 of another seed to test; the last epoch counts."""
from captcha_fastai.recipes import system_c
from training import main, synth_loaders, synth_test

def loaders(row, step, n, seed, args): return synth_loaders(system_c['data'][step['data']], row, step, n, min(args.n or 800, system_c['valid']), args.workers)

def test(row, learn, seed, args): return learn.dls.valid.new(synth_test(system_c['data']['serif'], min(args.n or 10**9, system_c['test'])))

if __name__ == '__main__': main('system_c', system_c, __doc__, loaders, test)

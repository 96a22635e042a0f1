"""One reader of four-digit captchas in four forms: torch, ONNX, ONNX in 8 bits measured on images, ONNX in 8 bits without images.

    python benchmarks/reader.py

A small reader is trained on 48,000 drawn captchas, each seen once (kept in `cache/`, so that measuring can be repeated) and read from 2,000 others in all four forms: how many are right, how often
the text is that of torch, by how much a confidence differs at most. Speed is that of the network alone, in seconds of one CPU thread, so a busy machine matters little; the forms take
turns, and the median of all rounds counts. The 8-bit form is measured on 200 more captchas, which are neither in the training nor in the test."""
import os, tempfile, time, warnings
from functools import partial
from pathlib import Path
from statistics import median
import numpy as np
import torch
from captcha_fastai.all import CaptchaDataLoaders, SynthCaptcha, captcha_learner, named_bodies, nopool_xresnet, set_seed, small_resnet
from captcha_fastai.inference import CaptchaReader
from captcha_fastai.onnx_reader import OnnxReader
from common import cache, results, save_json, where, wilson

seed,n_train,n_valid,n_images,n_test,rounds = 0,48000,500,200,2000,15
torch.set_num_threads(1)
size,widths = (32,88),(16,32,64,128)
named_bodies['slim'] = partial(small_resnet, widths=widths)
synth = SynthCaptcha('0123456789', 4, (60,160), seed=seed)
samples = lambda start, n: zip(*(synth[n_valid+n_train+i] for i in range(start, start+n)))

def trained():
    "The reader, from the cache if it is there"
    folder = cache/'reader'
    if not (folder/'reader.json').exists():
        set_seed(seed, reproducible=True)
        dls = CaptchaDataLoaders.from_synth(synth, n_train, n_valid, size=size, batch_tfms=[], bs=32)
        learn = captcha_learner(dls, nopool_xresnet, arch_args=dict(body='slim', hidden=256)).to_bf16()
        learn.fit_one_cycle(1, 5e-3)
        learn.calibrate()
        CaptchaReader.from_learner(learn).save(folder)
    return CaptchaReader.load(folder, 'cpu')

def per_second(readers, xs, bs):
    "Images per second of each reader's network, in batches of `bs`, on one thread"
    seconds = {k:[] for k in readers}
    for r in range(rounds+1): # the first round doesn't count
        for k,o in readers.items():
            start = time.process_time()
            for i in range(0, len(xs), bs): o._forward(xs[i:i+bs])
            if r: seconds[k].append(time.process_time()-start)
    return {k:round(len(xs)/median(v)) for k,v in seconds.items()}

def main():
    warnings.simplefilter('ignore')
    reader = trained()
    images,_ = samples(n_test, n_images)
    test,labels = samples(0, n_test)
    with tempfile.TemporaryDirectory() as d:
        files = {k:Path(d)/f'{k}.onnx' for k in ('onnx','int8','int8_dynamic')}
        for f,q in zip(files.values(), (False, images, True)): reader.to_onnx(f, quantize=q)
        mb = dict(torch=(cache/'reader'/'model.safetensors').stat().st_size, **{k:f.stat().st_size for k,f in files.items()})
        readers = dict(torch=reader, **{k:OnnxReader(f, threads=1) for k,f in files.items()})
    readings = {k:o.read(test, progress=False) for k,o in readers.items()}
    pixels = reader._pixels(test[:64])
    one,many = per_second(readers, pixels[:16], 1),per_second(readers, pixels, 64)
    rows = []
    for k,rs in readings.items():
        right = sum(r.text == l for r,l in zip(rs, labels))
        low,high = wilson(right, n_test)
        rows.append(dict(form=k, right=right, n=n_test, accuracy=round(100*right/n_test, 2), low=low, high=high, same_text=sum(a.text == b.text for a,b in zip(rs, readings['torch'])),
                         confidence_gap=max(abs(a.confidence-b.confidence) for a,b in zip(rs, readings['torch']) if a.text == b.text), one=one[k], many=many[k], megabytes=round(mb[k]/1e6, 2)))
        print(rows[-1])
    save_json(results/'reader.json', dict(rows=rows, task=dict(chars='0123456789', length=4, size=size, style='image_captcha', seed=seed, n_train=n_train, n_images=n_images),
                                          arch=reader.info['models'][0]['arch'], body=f'small_resnet, widths {widths}', rounds=rounds, threads=1, **where('onnxruntime','onnx','captcha','pillow')))

if __name__ == '__main__': main()

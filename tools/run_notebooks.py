"""Run notebooks with nbdev's runner and keep their outputs, as a terminal would show them at the end: no half-way progress bars, no warnings of other packages.

    python tools/run_notebooks.py nbs/09_data.ipynb …   [--slow: cells with the flag `slow`, too]"""
import argparse, json, os, re, sys
from pathlib import Path
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.test import test_nb

_bar = re.compile(r'^(█|\s*|.*\|[█-]{10,}\|.*)$')

def final_text(s):
    "What stays of `s` on a terminal when carriage returns have written over each other, without bars."
    lines = [l.rstrip('\r').split('\r')[-1].replace('█', '').rstrip() for l in s.split('\n')]
    return '\n'.join(l for l in lines if not _bar.match(l)).strip('\n')

def tidy(nb):
    "Streams of each cell as they are at the end; empty ones and those of stderr left out."
    for c in nb['cells']:
        if c['cell_type'] != 'code': continue
        kept = []
        for o in c['outputs']:
            if o['output_type'] == 'stream':
                text = final_text(''.join(o['text']))
                if o['name'] == 'stderr' or not text: continue
                o['text'] = (text+'\n').splitlines(True)
            kept.append(o)
        c['outputs'] = kept
    return nb

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='+', type=Path)
    p.add_argument('--slow', action='store_true', help='run cells with the flag `slow`, too')
    args = p.parse_args()
    failed = []
    for nb in map(Path.resolve, args.notebooks):
        cfg = get_config(nb)
        ok,seconds = test_nb(nb, skip_flags=cfg.tst_flags.split(), force_flags=['slow'] if args.slow else [], basepath=cfg.config_path, save=True)
        nb.write_text(json.dumps(tidy(json.loads(nb.read_text(encoding='utf-8'))), indent=1, ensure_ascii=False)+'\n', encoding='utf-8')
        nbdev_clean(fname=str(nb))
        print(f'{nb.name}: {"ok" if ok else "FAILED"}, {seconds:.1f} s', flush=True)
        if not ok: failed.append(nb)
    sys.exit(bool(failed))

if __name__ == '__main__': main()

"""What every benchmark needs: where it ran, and results that are written whole or not at all."""
import csv, json, os, platform, subprocess, sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from captcha_fastai.calibrate import wilson as interval
from captcha_fastai.manifest import file_sha256

here = Path(__file__).parent
results,cache = here/'results',here/'cache'

def _cpu():
    try: return next(l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name'))
    except (OSError,StopIteration): return platform.processor()

def _git(*args): return subprocess.run(['git', *args], cwd=here, capture_output=True, text=True).stdout.strip()

# read when the script starts: the code that runs is the code of that moment
commit,uncommitted = _git('rev-parse', 'HEAD'),bool(_git('status', '--porcelain', '--', '../captcha_fastai', '*.py'))

def _version(p):
    try: return version(p)
    except PackageNotFoundError: return None

def where(*packages):
    "Machine, versions, commit and date of a run; a GPU counts if the script has imported torch."
    torch = sys.modules.get('torch')
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return dict(machine=dict(cpu=_cpu(), cores=cores, gpu=torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None),
                versions=dict(python=platform.python_version(), **{p:v for p in ('torch','fastai',*packages) if (v := _version(p))}),
                commit=commit, uncommitted=uncommitted,
                date=datetime.now(timezone.utc).isoformat(timespec='seconds'))

def save_json(path, obj):
    "Write `obj` to a temporary name and rename it."
    path = Path(path); path.parent.mkdir(exist_ok=True, parents=True)
    tmp = path.with_suffix('.tmp')
    tmp.write_text(json.dumps(obj, indent=1, ensure_ascii=False)+'\n')
    os.replace(tmp, path)

def chars_right(labels, texts):
    "Share of the characters of all labels that are right at their place, as in `char_accuracy`."
    return sum(a == b for l,t in zip(labels, texts) for a,b in zip(l, t))/sum(map(len, labels))

def digest(path): return file_sha256(path)[:12]

def real_captchas(path):
    "Files and labels of captcha_images_v2, or of the competition's labelled images."
    if not (path := Path(path)).joinpath('train.csv').exists(): return (files := sorted(path.glob('*.png'))), [f.stem for f in files]
    with open(path/'train.csv', newline='') as f: table = [*csv.DictReader(f)]
    return [path/'train'/f"{int(o['Id']):05d}.webp" for o in table], [o['Label'] for o in table]

def load_json(path, default=None): return json.loads(Path(path).read_text()) if Path(path).exists() else default

def wilson(k, n):
    "95 % Wilson interval of k of n, in per cent."
    return tuple(round(100*float(o), 2) for o in interval(k, n))

"""The service under load: many clients as fast as they can, with bad uploads among them, slow and lost clients, uploads of a gigabyte, and a stop in the middle.

    python benchmarks/serve_load.py

The command `captcha-serve` runs in a process of its own, with a reader of random weights (what it reads doesn't matter here, only that the service answers what the reader says of the same file alone). Clients and
service share the machine, so requests per second are a lower bound; requests for each second of a processor that the service has used say what it takes by itself. Memory is the service's resident set, after the
warm-up and at the end. Trouble comes during the load, the stop after it, while requests of 16 images are under way. The tests run a few seconds of the same."""
import argparse, http.client, io, json, os, random, re, signal, socket, subprocess, sys, tempfile, threading, time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean, quantiles

root = Path(__file__).resolve().parent.parent
upload = b'--b\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\n\r\n'
form_type = 'multipart/form-data; boundary=b'

def make_reader(folder, size=(50,200), seed=0):
    "A reader of random weights, so sharp that its texts differ, and pictures with what it reads on each: `[(PNG, text, confidence)]`"
    import torch
    from captcha_fastai.inference import CaptchaReader
    from captcha_fastai.models import nopool_xresnet
    from captcha_fastai.synth import SynthCaptcha
    torch.manual_seed(seed)
    synth,net = SynthCaptcha('0123456789', 4, size, seed=seed),nopool_xresnet(11, 4, size, body='small_resnet', hidden=128)
    with torch.no_grad(): net.head[-1].bias.view(4,11)[:,0] -= 10 # four digits, never less
    info = dict(format='captcha_fastai reader', version=1, library='0', head='position', vocab='0123456789', max_len=4, size=list(size), mode='RGB', resize='squish bilinear', decoder={}, threshold=None,
                models=[dict(arch='nopool_xresnet', arch_args=dict(body='small_resnet', hidden=128), temperature=.05, mean=[.5]*3, std=[.25]*3)])
    files = []
    for i in range(24):
        synth[i][0].save(b := io.BytesIO(), 'PNG')
        files.append(b.getvalue())
    reader = CaptchaReader(info, {f'0.{k}':v for k,v in net.state_dict().items()}, 'cpu')
    with torch.no_grad(): net.train()((torch.from_numpy(reader._pixels(files)).permute(0,3,1,2)/255-.5)/.25)
    reader = CaptchaReader(info, {f'0.{k}':v for k,v in net.state_dict().items()}, 'cpu')
    reader.save(folder)
    readings = [reader.read(o, n_best=3) for o in files] # as the service does, which shows alternatives
    assert len({r.text for r in readings}) > len(files)//2, 'the pictures are read alike'
    return [(f, r.text, r.confidence) for f,r in zip(files, readings)]

@contextmanager
def service(reader, *options):
    "`captcha-serve` in a process of its own, and its port"
    code = f'import sys; from captcha_fastai.serve_cli import main; sys.exit(main({[str(reader), "--port", "0", *options]!r}))'
    p = subprocess.Popen([sys.executable, '-c', code], cwd=root, env=dict(os.environ, OMP_NUM_THREADS='1'), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try: yield p, int(p.stdout.readline().split(':')[2].split('/')[0])
    finally: p.kill(); p.communicate()

def resident(pid):
    "Megabytes that a process has in memory, on Linux"
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6

def cpu_seconds(pid):
    "Seconds of processors that a process has used, on Linux"
    return sum(map(int, Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[11:13]))/os.sysconf('SC_CLK_TCK')

# requests
def form(*files, **fields):
    parts = [b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (k.encode(), str(v).encode()) for k,v in fields.items()]
    return b''.join(parts) + b''.join(upload % f'{i}.png'.encode() + o + b'\r\n' for i,o in enumerate(files)) + b'--b--\r\n'

def bad_request(rng, good):
    "Something wrong: what it is called, the body, more headers, and the path"
    kinds = {'text as an image': (form(b'hello'), {}), 'empty image': (form(b''), {}), 'cut image': (form(good[:len(good)//3]), {}), 'no form': (good, {'content-type':'image/png'}),
             'broken form': (b'--b\r\n\r\n--b--\r\n', {}), 'unknown field': (form(good, lenght=5), {}), 'wrong length': (form(good, length='five'), {}), 'impossible length': (form(good, length=50), {}),
             'too many images': (form(*[good]*33), {}), 'foreign origin': (form(good), {'origin':'http://evil.example'}), 'wrong host': (form(good), {'host':'evil.example'}), 'too large': (form(b'x'*9_000_000), {})}
    name = rng.choice(sorted(kinds))
    return name, *kinds[name]

inside = re.compile(rb'Traceback|File "|\.py\b|site-packages|/tmp/|' + re.escape(str(root).encode()) + b'|' + re.escape(os.path.expanduser('~').encode()) + b'/') # what no answer may say

def are_right(readings, pictures): return [o['text'] for o in readings] == [t for _,t,_ in pictures] and all(abs(o['confidence']-c) < 1e-4 for o,(_,_,c) in zip(readings, pictures))

class Client(threading.Thread):
    "Asks as fast as it can until `until`; of its requests, the share `bad` is wrong"
    def __init__(self, port, pictures, until, seed, bad=.05):
        super().__init__(daemon=True)
        self.port,self.pictures,self.until,self.rng,self.bad = port,pictures,until,random.Random(seed),bad
        self.times,self.counts,self.odd,self.images = [],Counter(),[],0

    def run(self):
        conn = None
        while time.monotonic() < self.until:
            conn = conn or http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
            try: keep = self.one(conn)
            except (OSError, http.client.HTTPException) as e: self.odd.append(f'{type(e).__name__}: {e}'); keep = False
            if not keep: conn.close(); conn = None

    def one(self, conn):
        wrong = self.rng.random() < self.bad
        chosen = self.rng.choices(self.pictures, k=self.rng.choice((1,1,1,2,4)))
        name,body,headers = bad_request(self.rng, chosen[0][0]) if wrong else ('good', form(*(o[0] for o in chosen)), {})
        start = time.perf_counter()
        try: conn.request('POST', '/api/read', body, {'content-type':form_type, **headers})
        except (BrokenPipeError, ConnectionResetError): # a refusal may come before everything is sent
            if name != 'too large': raise
        r = conn.getresponse()
        data = r.read()
        if inside.search(data): self.odd.append(f'{name}: {data[:200]!r}')
        if wrong: ok = 400 <= r.status < 500 and json.loads(data)['error'].endswith('.')
        else:
            ok = r.status == 200 and are_right(json.loads(data)['readings'], chosen)
            self.times.append(time.perf_counter()-start); self.images += len(chosen)
        self.counts[name, ok] += 1
        if not ok: self.odd.append(f'{name}: {r.status} {data[:200]!r}')
        return name != 'too large' and r.getheader('connection') != 'close'

def load(pid, port, pictures, clients=50, seconds=60., warm_up=10., bad=.05, seed=0):
    "What happened while `clients` asked for `seconds` after the warm-up"
    for s in (warm_up, seconds):
        until,cpu = time.monotonic() + s, cpu_seconds(pid)
        threads = [Client(port, pictures, until, f'{seed} {s} {i}', bad) for i in range(clients)]
        memory = []
        for t in threads: t.start()
        while time.monotonic() < until: memory.append(resident(pid)); time.sleep(min(.5, s/10))
        for t in threads: t.join(90)
        cpu = cpu_seconds(pid)-cpu
    counts,times = sum((t.counts for t in threads), Counter()),sorted(x for t in threads for x in t.times)
    odd = [o for t in threads for o in t.odd]
    refused = {n:k for (n,ok),k in sorted(counts.items()) if ok and n != 'good'}
    cut = quantiles(times, n=100) if len(times) > 1 else times*99
    fifth = max(1, len(memory)//10)
    before,after = mean(memory[:fifth]),mean(memory[-fifth:])
    return dict(clients=clients, seconds=seconds, warm_up=warm_up, requests=sum(counts.values()), images=sum(t.images for t in threads),
                good=sum(k for (n,_),k in counts.items() if n == 'good'), right=counts['good',True], bad=sum(k for (n,_),k in counts.items() if n != 'good'), refused=sum(refused.values()), refused_by_kind=refused, odd=odd[:20], n_odd=len(odd),
                per_second=round(sum(counts.values())/seconds, 1), cpu_seconds=round(cpu, 1), per_cpu_second=round(sum(counts.values())/max(cpu, .01), 1), p50_ms=round(1000*cut[49]), p99_ms=round(1000*cut[98]),
                memory_mb=dict(after_warm_up=round(before, 1), at_end=round(after, 1), peak=round(max(memory), 1), growth_percent=round(100*(after/before-1), 2)))

# trouble
def head(length=None, extra=b''): return b'POST /api/read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n' + extra + (b'' if length is None else b'Content-Length: %d\r\n' % length) + b'\r\n'

def send(port, pieces, wait=0., timeout=90):
    "The status of what the service answers to raw bytes, None if it hangs up without a word; and how many bytes it took"
    sent = 0
    with socket.create_connection(('127.0.0.1', port), timeout=timeout) as s:
        s.settimeout(timeout)
        try:
            for p in pieces: s.sendall(p); sent += len(p); time.sleep(wait)
        except OSError: pass # it has hung up
        try: line = s.makefile('rb').readline()
        except OSError: line = b''
    return (int(line.split()[1]) if line.startswith(b'HTTP/') else None), sent

def drop(port, body, before=False):
    "Send half a request, or a whole one, and be gone without a word"
    import struct
    with socket.create_connection(('127.0.0.1', port), timeout=30) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)) # a reset, as of a lost connection
        s.sendall(head(len(body)) + (body[:len(body)//2] if before else body))

def trouble(port, picture, gigabyte=10**9, slow=40.):
    "What the service does about clients that are slow, lost or huge: rows of what, answer, whether that is right"
    rows,body,part = [],form(picture),b'x'*2**20
    def row(what, status, ok): rows.append(dict(what=what, status=status, ok=bool(ok)))
    status,sent = send(port, [head(gigabyte), *[part]*(gigabyte//len(part))])
    row(f'an upload of {gigabyte/1e9:g} GB that says so', status, status == 413)
    chunk = lambda o: b'%x\r\n' % len(o) + o + b'\r\n'
    status,sent = send(port, [head(None, b'Transfer-Encoding: chunked\r\n'), chunk(upload % b'x.png'), *[chunk(part)]*(gigabyte//len(part)+1)])
    row(f'an upload of {gigabyte/1e9:g} GB that does not say so', status, status == 413 or status is None and sent < gigabyte)
    for _ in range(20): drop(port, body); drop(port, body, before=True)
    status,_ = send(port, [head(len(body), b'Connection: close\r\n') + body])
    row('a good request after 40 lost connections', status, status == 200)
    idle = [socket.create_connection(('127.0.0.1', port), timeout=30) for _ in range(100)]
    for s in idle: s.sendall(b'POST /api/read HTTP/1.1\r\nHost: 127.0')
    status,_ = send(port, [head(len(body), b'Connection: close\r\n') + body])
    for s in idle: s.close()
    row('a good request beside 100 clients that never finish theirs', status, status == 200)
    if slow:
        status,_ = send(port, [head(len(body)), *(body[i:i+1] for i in range(int(slow*2)))], wait=.5)
        row('a client that sends two bytes a second', status, status == 408)
    return rows

def stop(p, port, pictures, n=20):
    "SIGTERM while `n` requests of 16 images are under way: how many were answered right, and how it ended"
    ready,right = threading.Barrier(n+1),[]
    many = [pictures[i % len(pictures)] for i in range(16)]
    def ask():
        conn = http.client.HTTPConnection('127.0.0.1', port, timeout=150)
        conn.request('POST', '/api/read', form(*(o[0] for o in many)), {'content-type':form_type})
        ready.wait(60)
        with suppress(OSError, http.client.HTTPException):
            r = conn.getresponse()
            right.append(r.status == 200 and are_right(json.loads(r.read())['readings'], many))
    askers = [threading.Thread(target=ask, daemon=True) for _ in range(n)]
    for a in askers: a.start()
    ready.wait(60)
    time.sleep(.2) # what was sent has arrived
    start = time.monotonic()
    p.send_signal(signal.SIGTERM)
    for a in askers: a.join(150)
    status = p.wait(60)
    try: socket.create_connection(('127.0.0.1', port), timeout=5).close(); closed = False
    except OSError: closed = True
    return dict(in_flight=n, answered_right=sum(right), exit_status=status, said=p.stderr.read()[:500], no_longer_listens=closed, seconds=round(time.monotonic()-start, 1))

def run(clients=50, seconds=60., warm_up=10., bad=.05, gigabyte=10**9, slow=40., in_flight=20):
    "All of it, trouble during the load included"
    with tempfile.TemporaryDirectory() as d:
        pictures = make_reader(Path(d)/'reader')
        with service(Path(d)/'reader') as (p,port):
            rows = []
            meanwhile = threading.Thread(target=lambda: rows.extend(trouble(port, pictures[0][0], gigabyte, slow)), daemon=True)
            threading.Timer(warm_up, meanwhile.start).start()
            res = load(p.pid, port, pictures, clients, seconds, warm_up, bad)
            meanwhile.join(slow+300)
            return dict(**res, trouble=rows, stop=stop(p, port, pictures, in_flight))

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('--clients', type=int, default=50); a.add_argument('--seconds', type=float, default=60.); a.add_argument('--note', default='', help='on the machine, such as that others used it, too')
    a.add_argument('--out', type=Path, default=None)
    args = a.parse_args()
    from common import results, save_json, where
    res = dict(**run(args.clients, args.seconds), note=args.note, seed=0, **where('uvicorn','starlette','python-fasthtml'))
    print(json.dumps(res, indent=1))
    save_json(args.out or results/'serve_load.json', res)

if __name__ == '__main__': main()

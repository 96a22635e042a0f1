"""The service: its API, what it refuses, how it stops, and its page in a real browser. The reader is a small fake, so nothing is trained."""
import base64, csv, io, os, shutil, signal, socket, struct, subprocess, sys, threading, time, zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from captcha_fastai.decode import ImpossibleText
from captcha_fastai.reading import BaseReader
from captcha_fastai.serve import make_app
from captcha_fastai.serve_cli import listen, main
from captcha_fastai.vocab import Vocab
from helpers import until

root = Path(__file__).parent.parent
vocab = Vocab('0=abcdefg')
token = 'correct horse battery staple'

class GreyReader:
    "Reads pictures of `picture`: blocks of grey, one for each character. Its errors name a path, as a careless reader's might."
    size,head = (8,64),SimpleNamespace(kind='ctc')
    vocab = vocab
    def __init__(self, seconds=0., gate=None): self.seconds,self.gate,self.calls,self.busy,self.most = seconds,gate,[],0,0 # a closed gate (an Event) holds it up
    def _ids(self, data): return np.asarray(Image.open(io.BytesIO(data)).convert('L'))[4,4::8]//25
    def read(self, items, **options):
        self.calls.append((len(items), options))
        self.busy += 1; self.most = max(self.most, self.busy)
        time.sleep(self.seconds)
        if self.gate: self.gate.wait(20)
        self.busy -= 1
        if options.get('length') == 98: raise ImpossibleText('/home/secret: no such length')
        if options.get('length') == 96: raise ValueError('/home/secret: something else that is wrong')
        if options.get('length') == 97: raise RuntimeError('/home/secret: out of order')
        return [self._read(o, options) for o in items]
    def _read(self, data, o):
        try: text = vocab.decode(self._ids(data))
        except Exception as e: return SimpleNamespace(text='', confidence=0., answered=False, alternatives=[], error=f'/home/secret: {e}')
        return SimpleNamespace(text=text, confidence=.9, answered=.9 >= (o.get('threshold') or 0), alternatives=[(text, .9), (text[:-1], .05)], error=None, log_probs=self._log_probs(data) if o.get('keep') else None)
    def _log_probs(self, data):
        p = np.full((8, len(vocab)), .01)
        p[np.arange(8), np.resize(self._ids(data), 8)] = .92
        return np.log(p/p.sum(-1, keepdims=True))

def picture(text, kind='PNG'):
    b = io.BytesIO()
    Image.fromarray(np.repeat(np.array([[25*vocab.stoi[c]+3 for c in text]], dtype=np.uint8), 8, 1).repeat(8, 0)).save(b, kind)
    return b.getvalue()

def bomb(w, h):
    chunk = lambda kind,data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(b'\0'*1000)) + chunk(b'IEND', b'')

def app_client(reader=None, base_url='http://127.0.0.1:8000', **kw): return TestClient(make_app(reader or GreyReader(), **kw), base_url=base_url, raise_server_exceptions=False)
def post(client, *files, path='/api/read', headers=None, **fields): return client.post(path, files=[('images', f) for f in files], data=fields, headers=headers)

def refused(r, status, *words):
    "It was refused by one sentence, which says nothing about the inside."
    assert r.status_code == status, r.text
    why = r.json()['error']
    assert why.endswith('.') and '\n' not in why and not any(o in r.text for o in ('/home', 'Traceback', 'captcha_fastai', '0x', '.py')), why
    for o in words: assert o in why

@pytest.fixture
def client(): return app_client()

good = ('a.png', picture('abc'))

# reading
def test_several_images_in_their_order(client):
    r = post(client, good, ('b.gif', picture('0g', 'GIF')), ('c.webp', picture('dd', 'WEBP')), ('d.bmp', picture('e', 'BMP')))
    assert r.status_code == 200 and [(o['file'], o['text']) for o in r.json()['readings']] == [('a.png','abc'), ('b.gif','0g'), ('c.webp','dd'), ('d.bmp','e')]
    assert r.json()['readings'][0] == dict(file='a.png', text='abc', confidence=.9, answered=True, alternatives=[dict(text='ab', confidence=.05)], error=None)

def test_options_reach_the_reader():
    reader = GreyReader(); client = app_client(reader)
    assert not post(client, good, length=3, allowed='abc', threshold='.95', n_best=2).json()['readings'][0]['answered']
    assert reader.calls == [(1, dict(length=3, allowed='abc', threshold=.95, n_best=2))]

def test_heat():
    reader = GreyReader()
    heat = post(app_client(reader), good, heat=1).json()['readings'][0]['heat']
    assert [o['char'] for o in heat] == ['a','b','c'] and all(len(o['probs']) == 8 for o in heat)
    assert reader.calls == [(1, dict(n_best=3, keep=True))] # once through the network

def test_reads_what_the_reader_reads():
    "Also where the likeliest path is not that of the likeliest text: alternatives change nothing."
    class Doubtful(BaseReader):
        def _forward(self, x): return np.log([[[.3,.3,.4],[.399,.6,.001]]]*len(x))
    reader = Doubtful(dict(head='ctc', vocab='01', max_len=2, size=[8,16], mode='L', decoder={}, threshold=None))
    r = post(app_client(reader), good).json()['readings'][0]
    assert (r['text'], r['confidence']) == (reader.read(good[1]).text, reader.read(good[1]).confidence) and r['alternatives'][0]['text'] == '0'

def test_broken_images_among_good_ones(client):
    files = [good, ('empty.png', b''), ('notes.png', b'hello'), ('cut.png', good[1][:45]), ('bomb.png', bomb(60000, 60000)), ('z.png', picture('g'))]
    out = post(client, *files, heat=1).json()['readings']
    assert [o['text'] for o in out] == ['abc','','','','','g']
    for o,why in zip(out, [None, 'empty', 'no PNG', 'damaged', 'more than 4 million', None]): assert o['error'] is None if why is None else why in o['error'] and o['file'] in o['error'] and not o['answered']
    assert 'heat' in out[0] and 'heat' not in out[3]

@pytest.mark.parametrize('data', [b'', b'hello', good[1][:45], bomb(3000, 3000), bomb(60000, 60000), b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'%PDF-1.4', b'GIF89a', b'BM', b'RIFF1234WEBP', b'\xff\xd8\xff'])
def test_no_image_is_a_4xx(client, data): refused(post(client, ('x.png', data)), 422, 'x.png')

def test_names_of_files(client):
    names = ['../../etc/passwd', '<script>alert(1)</script>.png', 'ünï — 中.png', 'a\nb"c.png', 'x'*500]
    out = post(client, *[(n, good[1]) for n in names]).json()['readings']
    assert [o['text'] for o in out] == ['abc']*5 and out[2]['file'] == names[2] and len(out[4]['file']) == 200 and all(o['file'].isprintable() for o in out)
    assert '<script>' not in post(client, *[(n, good[1]) for n in names], path='/read').text

def test_csv_is_safe_in_spreadsheets(client):
    files = [('=HYPERLINK("x").png', picture('=ab')), ('+1.png', good[1]), ('-1.png', good[1]), ('@a.png', b'no'), ('plain, "quoted".png', picture('00a'))]
    r = post(client, *files, format='csv')
    assert r.headers['content-type'].startswith('text/csv') and 'attachment' in r.headers['content-disposition']
    head,*rows = csv.reader(io.StringIO(r.text))
    assert head == ['file','text','confidence','answered','error'] and len(rows) == 5
    assert not any(cell[:1] in '=+-@' for row in rows for cell in row if cell)
    refused(post(client, files[3], format='csv'), 422, '@a.png')
    assert rows[0][1] == "'=ab" and rows[3][3] == 'no' and rows[4][1] == '00a'

# refusals
@pytest.mark.parametrize('fields,why', [(dict(lenght=5), 'lenght'), (dict(length='x'), 'length'), (dict(length=0), 'length'), (dict(threshold='2'), 'threshold'), (dict(threshold='nan'), 'threshold'),
    (dict(allowed='aé'), 'é'), (dict(n_best=1000), 'n_best'), (dict(heat='yes'), 'heat'), (dict(format='xml'), 'format')])
def test_wrong_fields(client, fields, why): refused(post(client, good, **fields), 400, why)

def test_wrong_forms(client):
    refused(client.post('/api/read', content=good[1], headers={'content-type':'image/png'}), 415, 'multipart')
    refused(client.post('/api/read'), 415)
    refused(client.post('/api/read', content=b'--b\r\n\r\n--b--\r\n', headers={'content-type':'multipart/form-data; boundary=b'}), 400)
    refused(client.post('/api/read', content=b'', headers={'content-type':'multipart/form-data'}), 400)
    refused(client.post('/api/read', content=b'\0'*100, headers={'content-type':'multipart/form-data; boundary=b'}), 400)
    refused(client.post('/api/read', files={'length':(None, '5')}), 400, 'no image')
    refused(client.get('/api/read'), 405)
    refused(client.get('/nowhere'), 404)
    refused(client.get('/assets/../serve.py'), 404)
    refused(client.get('/assets/%2e%2e/serve.py'), 404)

def test_too_many_images(client):
    assert post(client, *[good]*32).status_code == 200
    refused(post(client, *[good]*33), 413, '32')
    refused(post(app_client(max_images=2), *[good]*3), 413, '2 images')

def test_too_large(client):
    refused(post(client, ('x.bmp', b'x'*8_000_000)), 413, '8 MB')
    def form():
        yield b'--b\r\nContent-Disposition: form-data; name="images"; filename="x.png"\r\n\r\n'
        for _ in range(100): yield b'x'*100_000
    refused(client.post('/api/read', content=form(), headers={'content-type':'multipart/form-data; boundary=b'}), 413, '8 MB') # a size that is not told before

def test_an_impossible_wish(client): refused(post(client, good, length=98), 422, 'length')
@pytest.mark.parametrize('length', [97, 96]) # any error; a ValueError is no impossible wish by itself
def test_a_mistake_of_our_own(client, length): refused(post(client, good, length=length), 500, 'log')

@pytest.mark.parametrize('host', ['evil.example', 'evil.example:8000', '127.0.0.1.evil.example', '10.0.0.1', 'localhost@evil.example', ''])
def test_wrong_host(client, host):
    for r in (client.get('/', headers={'host':host}), post(client, good, headers={'host':host})): refused(r, 403, 'name')

@pytest.mark.parametrize('host', ['localhost', 'LOCALHOST:8000', '127.0.0.1:9', '[::1]:8000'])
def test_right_host(client, host): assert post(client, good, headers={'host':host}).status_code == 200

@pytest.mark.parametrize('origin', ['https://evil.example', 'http://127.0.0.1:3000', 'http://localhost:8000', 'null', 'http://['])
def test_foreign_origin(client, origin):
    refused(post(client, good, headers={'origin':origin}), 403, 'origin')
    refused(client.get('/', headers={'origin':origin}), 403, 'origin')

def test_own_origin(client): assert post(client, good, headers={'origin':'http://127.0.0.1:8000', 'sec-fetch-site':'same-origin'}).status_code == 200
def test_foreign_site(client): refused(post(client, good, headers={'sec-fetch-site':'cross-site', 'sec-fetch-mode':'no-cors'}), 403, 'site')

def test_token():
    client = app_client(token=token, any_address=True, base_url='http://10.0.0.7:8000')
    refused(post(client, good), 401, 'token')
    for h in ('Bearer guess', f'Basic {token}', 'Bearer'): refused(post(client, good, headers={'authorization':h}), 401)
    assert post(client, good, headers={'authorization':f'Bearer {token}'}).status_code == 200
    page = client.get('/', headers={'accept':'text/html'})
    assert page.url.path == '/login' and 'type="password"' in page.text
    assert client.post('/login', data={'token':'guess'}).status_code == 403 and not client.cookies
    r = client.post('/login', data={'token':token}, follow_redirects=False)
    assert r.status_code == 303 and all(o in r.headers['set-cookie'] for o in ('HttpOnly', 'SameSite=strict')) and token not in r.headers['set-cookie']
    assert client.get('/').status_code == 200 and post(client, good).status_code == 200
    refused(post(client, good, headers={'origin':'http://evil.example'}), 403)

def test_pages_are_local_and_locked(client):
    for path in ('/', '/api', '/login', '/nowhere'):
        r = client.get(path, headers={'accept':'text/html'})
        assert '<html' in r.text and "default-src 'none'" in r.headers['content-security-policy'] and 'access-control-allow-origin' not in r.headers
        assert not [o for o in r.text.split('"') if o.startswith(('http:', 'https:', '//'))] and ' style=' not in r.text and '<script>' not in r.text
    for f in (root/'captcha_fastai'/'assets').iterdir():
        assert client.get(f'/assets/{f.name}').content == f.read_bytes()
        if f.suffix in ('.css','.js','.svg'): assert 'url(' not in f.read_text() and f.read_text().count('http') == f.read_text().count('http://www.w3.org/')

# load
@contextmanager
def serving_app(app):
    "A server in a thread; its port"
    import uvicorn
    sock = listen('127.0.0.1', 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level='critical', lifespan='off', ws='none'))
    thread = threading.Thread(target=server.run, kwargs=dict(sockets=[sock]), daemon=True)
    thread.start()
    try: yield sock.getsockname()[1]
    finally: server.should_exit = True; thread.join(20); sock.close()

def serving(reader, **kw): return serving_app(make_app(reader, **kw))

def answer(port, *pieces, wait=0.):
    "What the service answers to raw bytes"
    with socket.create_connection(('127.0.0.1', port), timeout=20) as s:
        try:
            for p in pieces: s.sendall(p); time.sleep(wait)
        except OSError: pass # it has hung up
        return s.makefile('rb').read()

def raw(body, length=None):
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x.png"\r\n\r\n' + body + b'\r\n--b--\r\n'
    return b'POST /api/read HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n' % (length or len(form)) + form

def test_model_works_on_few_requests_and_the_rest_waits():
    reader = GreyReader(.05)
    with serving(reader) as port, ThreadPoolExecutor(8) as ex:
        out = list(ex.map(lambda _: answer(port, raw(good[1])), range(8)))
    assert all(b'"abc"' in o for o in out) and reader.most == 1

def test_too_many_requests():
    gate = threading.Event()
    with serving(GreyReader(gate=gate), waiting=2) as port, ThreadPoolExecutor(6) as ex:
        jobs = [ex.submit(answer, port, raw(good[1])) for _ in range(6)]
        until(lambda: sum(o.done() for o in jobs) == 4)
        assert all(b' 503 ' in o.result() and b'retry-after: 1' in o.result() for o in jobs if o.done())
        gate.set()
        assert sum(b'"abc"' in o.result() for o in jobs) == 2

def test_lost_clients_make_room():
    reader = GreyReader(gate=threading.Event())
    with serving(reader, waiting=3) as port, ThreadPoolExecutor(1) as ex:
        def send():
            s = socket.create_connection(('127.0.0.1', port), timeout=.3); s.sendall(raw(good[1]))
            return s
        def full():
            with send() as s:
                try: return b' 503 ' in s.recv(1000)
                except TimeoutError: return False
        first = ex.submit(answer, port, raw(good[1]))
        until(lambda: reader.busy)
        lost = [send(), send()]
        until(full)
        for s in lost: s.close()
        until(lambda: not full()) # while the model still works on the first
        assert not first.done()
        reader.gate.set()
        assert b'"abc"' in first.result()

def test_others_are_answered_while_the_model_works():
    reader = GreyReader(gate=threading.Event())
    with serving(reader) as port, ThreadPoolExecutor(1) as ex:
        slow = ex.submit(answer, port, raw(good[1]))
        until(lambda: reader.busy)
        assert b'200 OK' in answer(port, b'GET /api HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        reader.gate.set()
        assert b'"abc"' in slow.result()

def test_slow_large_and_lost_clients():
    with serving(GreyReader(), timeout=.4) as port: assert b' 408 ' in answer(port, raw(good[1], 100_000), *[b'x']*3, wait=.1)
    with serving(GreyReader(), max_bytes=1_000_000) as port:
        assert b' 413 ' in answer(port, raw(b'', 3_000_000), *[b'x'*100_000]*30) # an honest size
        chunk = b'186a0\r\n' + b'x'*100_000 + b'\r\n'
        head,form = raw(b'').split(b'\r\n\r\n', 1)
        start = head.replace(b'Content-Length: %d' % len(form), b'Transfer-Encoding: chunked') + b'\r\n\r\n'
        first = form.replace(b'--b--\r\n', b'')
        assert b' 413 ' in answer(port, start, b'%x\r\n' % len(first) + first + b'\r\n', *[chunk]*30, b'0\r\n\r\n') # no size
        with socket.create_connection(('127.0.0.1', port)) as s: s.sendall(raw(good[1], 100_000)) # gone before the end
        assert b'"abc"' in answer(port, raw(good[1]))

# the command
fake = "import sys; sys.path.insert(0, 'tests'); import captcha_fastai.serve_cli as c; from test_serve import GreyReader; c.load_reader = lambda p: GreyReader({seconds}); sys.exit(c.main({argv}))"

@contextmanager
def command(*argv, seconds=0., **env):
    "The command with a fake reader in a process of its own; the process and the first lines that it prints"
    p = subprocess.Popen([sys.executable, '-c', fake.format(seconds=seconds, argv=['reader', '--port', '0', *argv])], cwd=root, env=dict(os.environ, **env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try: yield p, int(p.stdout.readline().split(':')[2].split('/')[0])
    finally: p.kill(); p.communicate()

@pytest.mark.parametrize('stop', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_requests_finish(stop):
    with command(seconds=2.) as (p,port), ThreadPoolExecutor(2) as ex:
        assert b' 404 ' in answer(port, b'GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        jobs = [ex.submit(answer, port, raw(good[1])) for _ in range(2)] # one in work, one waiting
        time.sleep(1)
        p.send_signal(stop)
        assert all(b'"abc"' in o.result() for o in jobs)
        assert p.wait(20) == 0 and p.stderr.read() == ''

def test_another_host_takes_a_token():
    with command('--host', '0.0.0.0') as (p,port):
        secret = p.stdout.readline().split()[1]
        assert len(secret) >= 32 and b' 401 ' in answer(port, raw(good[1]))
        assert b'"abc"' in answer(port, raw(good[1]).replace(b'Connection', b'Authorization: Bearer %s\r\nConnection' % secret.encode()))
    with command('--host', '0.0.0.0', CAPTCHA_SERVE_TOKEN=token) as (p,port):
        assert b' 401 ' in answer(port, raw(good[1])) and b'"abc"' in answer(port, raw(good[1]).replace(b'Connection', b'Authorization: Bearer %s\r\nConnection' % token.encode()))

def test_command_says_what_is_wrong(capsys, tmp_path):
    with listen('127.0.0.1', 0) as sock:
        assert main([str(tmp_path), '--port', str(sock.getsockname()[1])]) == 1 and '--port' in capsys.readouterr().err
    assert main([str(tmp_path/'nowhere'), '--port', '0']) == 1 and 'There is no reader' in capsys.readouterr().err
    for option,values in {'--port':('-1','65536','x'), '--max-images':('0','x'), '--max-upload':('nan','inf','0','-1'), '--max-pixels':('nan','inf','0','0.0000001')}.items():
        for v in values:
            with pytest.raises(SystemExit): main(['reader', f'{option}={v}'])
            assert f'{v!r} is not a' in capsys.readouterr().err

def test_help_needs_next_to_nothing():
    code = "import sys; from captcha_fastai.serve_cli import main\ntry: main(['--help'])\nexcept SystemExit: print([m for m in ('torch','fasthtml','starlette','numpy','PIL') if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert 'captcha-serve' in out and out.strip().endswith('[]')

def test_some_seconds_of_the_benchmark(monkeypatch):
    "What `benchmarks/serve_load.py` does for a minute, with the command and a reader of random weights: load, bad uploads, lost and huge ones, a stop"
    monkeypatch.syspath_prepend(root/'benchmarks')
    import serve_load
    res = serve_load.run(clients=6, seconds=4., warm_up=1., bad=.3, gigabyte=2*10**7, slow=0, in_flight=3)
    assert res['right'] == res['good'] > 0 and res['refused'] == res['bad'] > 0 and not res['n_odd'], res
    assert len(res['trouble']) == 4 and all(o['ok'] for o in res['trouble']), res['trouble']
    assert {k:v for k,v in res['stop'].items() if k != 'seconds'} == dict(in_flight=3, answered_right=3, exit_status=0, said='', no_longer_listens=True)

# a real browser
chromium,driver = shutil.which('chromium') or shutil.which('google-chrome'),shutil.which('chromedriver')

@contextmanager
def browser(tmp_path):
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    if not chromium or not driver: pytest.skip('Chromium and its driver are not installed (apt-get install chromium chromium-driver)')
    o = webdriver.ChromeOptions()
    o.binary_location = chromium
    for a in ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', f'--user-data-dir={tmp_path/"profile"}'): o.add_argument(a)
    o.add_experimental_option('prefs', {'download.default_directory':str(tmp_path)})
    o.set_capability('goog:loggingPrefs', {'browser':'ALL'})
    b = webdriver.Chrome(options=o, service=webdriver.ChromeService(driver))
    try: yield b
    finally: b.quit()

def css(b, s): return b.find_elements('css selector', s)
def texts(b): return [o.text for o in css(b, '.card output')]

def drop(b, paths):
    "Drop files as a person would, by the browser's own events"
    data = dict(items=[], files=[str(o) for o in paths], dragOperationsMask=1)
    for kind in ('dragEnter', 'dragOver', 'drop'): b.execute_cdp_cmd('Input.dispatchDragEvent', dict(type=kind, x=200, y=200, data=data))

def test_page_in_a_browser(tmp_path):
    files = {'one.png':picture('abc'), '=two.png':picture('00g'), 'three.webp':picture('=f', 'WEBP')}
    for n,d in files.items(): (tmp_path/n).write_bytes(d)
    with serving(GreyReader()) as port, browser(tmp_path) as b:
        b.get(f'http://127.0.0.1:{port}/')
        drop(b, [tmp_path/n for n in files])
        until(lambda: len(texts(b)) == 3)
        assert texts(b) == ['abc', '00g', '=f'] and css(b, '#status')[0].text == '3 pictures read'
        assert len(css(b, '.heat')) == 3 and [o.text for o in css(b, '.percent')] == ['90.0 %']*3 and css(b, 'meter')[0].get_attribute('value') == '0.9'
        assert all(b.execute_script('return arguments[0].naturalWidth', o) > 0 for o in css(b, '.card img'))
        css(b, '#csv')[0].click()
        rows = list(csv.reader(until(lambda: (tmp_path/'readings.csv').exists() and (tmp_path/'readings.csv').read_text()).splitlines()))
        assert [o[:2] for o in rows] == [['file','text'], ['one.png','abc'], ["'=two.png",'00g'], ['three.webp',"'=f"]]
        seen = set()
        for width,height,theme in ((1200, 900, 'light'), (1200, 900, 'dark'), (375, 812, 'light')):
            b.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=False))
            b.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=theme)]))
            until(lambda: b.execute_script('return innerWidth') == width)
            assert b.execute_script('return document.documentElement.scrollWidth') <= width
            seen.add(b.execute_script("return getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color"))
        assert len(seen) == 2 # two themes
        css(b, '.remove')[0].click()
        assert texts(b) == ['00g', '=f']
        (tmp_path/'broken.png').write_bytes(b'no image')
        css(b, '#files')[0].send_keys(f'{tmp_path/"one.png"}\n{tmp_path/"broken.png"}')
        until(lambda: css(b, '#status')[0].text == '3 pictures read, 1 not')
        assert css(b, '.card .error')[0].text == "'broken.png' is no PNG, JPEG, GIF, WebP or BMP image."
        css(b, '#clear')[0].click()
        assert not css(b, '.card') and not css(b, '#bar')[0].is_displayed()
        for path in ('api', 'login'):
            b.get(f'http://127.0.0.1:{port}/{path}')
            assert b.execute_script('return document.documentElement.scrollWidth') <= 375
        errors = [o for o in b.get_log('browser') if o['level'] in ('SEVERE','WARNING')]
        assert not errors, errors

def test_page_by_keyboard_and_paste(tmp_path):
    with serving(GreyReader()) as port, browser(tmp_path) as b:
        b.get(f'http://127.0.0.1:{port}/')
        from selenium.webdriver import ActionChains, Keys
        active = lambda: b.switch_to.active_element
        def press(key): ActionChains(b).send_keys(key).perform(); return active()
        places = [(o := press(Keys.TAB)).get_attribute('id') or o.text for _ in range(5)]
        assert places == ['captcha_fastai', 'Read', 'API', 'files', 'Options']
        paste = """const t = new DataTransfer(); t.items.add(new File([Uint8Array.from(atob(arguments[0]), c => c.charCodeAt())], 'image.png', {type: 'image/png'}));
            document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: t, bubbles: true, cancelable: true}))"""
        b.execute_script(paste, base64.b64encode(picture('fed')).decode())
        until(lambda: texts(b) == ['fed'])
        assert css(b, '.file')[0].text == 'pasted-1.png'
        assert press(Keys.ENTER) and css(b, '#options')[0].is_displayed()
        css(b, '[name=threshold]')[0].send_keys('95', Keys.TAB)
        until(lambda: css(b, '.badge')) # it was read again
        b.execute_script("document.querySelector('.remove').focus()")
        assert press(Keys.ENTER).get_attribute('id') == 'files' and not css(b, '.card')
        names = b.execute_script("return [...document.querySelectorAll('input,button')].filter(o => !o.labels?.length && !o.textContent && !o.ariaLabel).length")
        assert names == 0 # everything that can be used has a name

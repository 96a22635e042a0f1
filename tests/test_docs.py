"""The site: built once, every link and picture followed, and every page opened in a real browser."""
import functools, http.server, inspect, json, os, re, shutil, subprocess, sys, tarfile, threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag
import pytest
from filelock import FileLock
from helpers import until
from test_serve import browser, css

root = Path(__file__).parent.parent

@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The folder of the built site"
    pytest.importorskip('smalldocs', reason='smalldocs is not installed; it needs Python 3.11')
    here = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: here = here.parent # that of all processes
    out = here/'site'/'docs'
    with FileLock(here/'site.lock'): # one of them builds, the others wait
        if not (here/'built').exists():
            out.parent.mkdir(exist_ok=True)
            p = subprocess.run([sys.executable, 'tools/build_docs.py', '--engine', 'smalldocs', '--out', str(out)], cwd=root, capture_output=True, text=True)
            assert p.returncode == 0, p.stdout[-6000:] + p.stderr[-6000:]
            (here/'built').touch()
    return out

class Page(HTMLParser):
    "The ids, links and pictures of a page"
    def __init__(self, text):
        super().__init__()
        self.ids,self.links,self.images = set(),[],[]
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if 'id' in a: self.ids.add(a['id'])
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        if tag == 'img': self.images.append((a.get('src') or '', a.get('alt')))
        if tag in ('link','script') and (o := a.get('href') or a.get('src')): self.images.append((o, 'none needed'))

@pytest.fixture(scope='session')
def pages(site): return {p.relative_to(site).as_posix(): Page(p.read_text(encoding='utf-8')) for p in sorted(site.rglob('*.html'))}

def test_every_notebook_has_a_page_without_a_number(site, pages):
    from nbdev.config import nbpath2html
    wanted = {nbpath2html(p.relative_to(root/'nbs')).as_posix() for p in (root/'nbs').rglob('*.ipynb') if not any(o[0] in '._' for o in p.relative_to(root/'nbs').parts)}
    assert wanted | {'contributing.html','changelog.html','benchmarks.html','names.html'} == set(pages)

def test_no_broken_link_or_anchor(site, pages):
    broken = []
    for name,page in pages.items():
        for href in page.links:
            url,tag = urldefrag(href)
            if re.match(r'[a-z]+:', url): continue
            target = (site/name).parent/unquote(url) if url else site/name
            path = os.path.relpath(target.resolve(), site.resolve())
            if not target.is_file() or (tag and path in pages and unquote(tag) not in pages[path].ids): broken.append((name, href))
    assert not broken, broken

def test_no_missing_picture_and_each_is_described(site, pages):
    for name,page in pages.items():
        for src,alt in page.images:
            assert src.startswith('data:image/') or ((site/name).parent/unquote(src)).is_file(), (name, src)
            assert alt and len(alt) > 10, (name, src[:60], alt)

def test_every_public_name_has_its_place(pages):
    "Whatever says something of itself has a heading of its own; `plot_top_losses` adds to fastai's function of that name, which has its page there."
    sys.path.insert(0, str(root/'tools'))
    from build_docs import public_names, said
    for mod,name,address,o in public_names():
        page,tag = urldefrag(address)
        assert {tag, tag.split('.')[-1]} & pages[page].ids or not said(o) or o is None or name == 'plot_top_losses', f'{mod}.{name}'
        if '.' not in name or said(o): assert any(o.split('#')[0] == page for o in pages['names.html'].links), f'{mod}.{name}'

def overrides(o, name):
    "Does the method of class `o` stand in for one of its bases, or for an event or a step of fastai? What that does is said there."
    from fastai.callback.core import event
    return any(name in vars(b) for b in o.__mro__[1:]) or hasattr(event, name) or name in ('encodes','decodes','setups')

def docments_of(o):
    "{parameter or field that stands in the source of `o`: what its comment says}"
    from dataclasses import is_dataclass
    from fastcore.docments import docments
    if hasattr(o, '_fields'): return {k: dict(re.findall(r'^    (\w+): .*# (.+)$', inspect.getsource(o), re.M)).get(k) for k in o._fields} # of a named tuple, whose comments fastcore leaves out
    if is_dataclass(o): return {k: v for k,v in docments(o).items() if k in inspect.get_annotations(o)}
    f = vars(o).get('__init__') if inspect.isclass(o) else inspect.unwrap(getattr(o, '__func__', o))
    if not inspect.isfunction(f): return {}
    code,said = f.__code__,docments(f, args_kwargs=True)
    n = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return {k: said.get(k) for k in code.co_varnames[:n] if k not in ('self','cls') and k in inspect.signature(f).parameters} # others are those of `delegates`

def test_every_public_name_and_parameter_is_explained():
    sys.path.insert(0, str(root/'tools'))
    from build_docs import _find, public_names, said
    gaps = []
    for mod,name,_,o in public_names():
        cls,_,last = name.rpartition('.')
        if o is None or name == 'plot_top_losses' or cls and overrides(_find(sys.modules[mod], cls), last): continue # the first is a value, the second adds to fastai's function
        if not said(o): gaps.append(f'{mod}.{name} says nothing of itself')
        gaps += [f'{mod}.{name}: {k}' for k,v in docments_of(o).items() if not v]
    assert not gaps, '\n'.join(gaps)

def test_for_machines_too(site, pages):
    text = (site/'llms.txt').read_text(encoding='utf-8')
    assert text.startswith('# captcha_fastai\n\n> ') and '\n## Tutorials\n' in text
    listed = re.findall(r'^- \[[^\]]+\]\(https://captcha-fastai.github.io/captcha_fastai/([^)]+)\.llms\.md\)', text, re.M)
    assert sorted(f'{o}.html' for o in listed) == sorted(pages) and all((site/f'{o}.llms.md').is_file() for o in listed)
    for name in ('images/favicon.png','images/card.png','sitemap.xml'): assert (site/name).is_file()

# a real browser
@pytest.fixture(scope='session')
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

@pytest.fixture(scope='session')
def axe(tmp_path_factory):
    "The source of axe-core"
    if not shutil.which('npm'): pytest.skip('npm is not installed, so axe-core is not to be had')
    folder = tmp_path_factory.mktemp('axe')
    p = subprocess.run(['npm', 'pack', 'axe-core@4', '--silent'], cwd=folder, capture_output=True, text=True, timeout=120)
    if p.returncode: pytest.skip(f'axe-core is not to be had: {p.stderr[-200:]}')
    with tarfile.open(next(folder.glob('*.tgz'))) as t: return t.extractfile('package/axe.min.js').read().decode()

def size(b, width, height=900): b.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=False))
def theme(b, o): b.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=o)]))
def shot(b, name):
    "Keep a picture of the window where CI asks for it"
    if folder := os.environ.get('CAPTCHA_FASTAI_SCREENSHOTS'):
        Path(folder).mkdir(parents=True, exist_ok=True)
        b.save_screenshot(str(Path(folder)/f'{name}.png'))

check = """const done = arguments[arguments.length-1];
axe.run(arguments[0], {runOnly: ['color-contrast','image-alt','svg-img-alt','link-name','button-name','document-title','html-has-lang'], resultTypes: ['violations']})
   .then(r => done(r.violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.html.slice(0, 200) + (n.any[0] ? ' ' + n.any[0].message : '')))), e => done([String(e)]))"""

def test_every_page_in_a_browser(tmp_path, address, pages, axe):
    wrong = []
    with browser(tmp_path) as b:
        for i,name in enumerate(pages):
            size(b, 375, 812); theme(b, ('light','dark')[i%2]) # a phone by day or by night …
            b.get(address + name)
            if (w := b.execute_script('return document.documentElement.scrollWidth')) > 375: wrong.append((name, f'{w} pixels wide on a phone'))
            if b.execute_script("return [...document.images].some(o => !o.complete || !o.naturalWidth)"): wrong.append((name, 'a picture is missing'))
            if i%10 == 0: shot(b, f'phone-{Path(name).stem}')
            size(b, 1200); theme(b, ('dark','light')[i%2]) # … and the other theme on a desk, so that both are looked at on all kinds of pages
            b.refresh() # with the colours of code that go with it
            b.execute_script(axe)
            wrong += [(name, o) for o in b.execute_async_script(check, 'body' if i%8 == 0 else 'main')] # what is around the page is the same on all
            wrong += [(name, o['message']) for o in b.get_log('browser') if o['level'] in ('SEVERE','WARNING') and 'fonts.googleapis.com' not in o['message']] # without a network, the theme takes the fonts of the machine
            if i%10 == 0: shot(b, f'desk-{Path(name).stem}')
    assert not wrong, json.dumps(wrong[:40], indent=1)

def test_search_and_theme(tmp_path, address):
    from selenium.webdriver import Keys
    with browser(tmp_path) as b:
        size(b, 1200); theme(b, 'light')
        b.get(address + 'index.html')
        ground = lambda: b.execute_script('return getComputedStyle(document.body).backgroundColor')
        light = ground()
        css(b, '.quarto-color-scheme-toggle')[0].click()
        until(lambda: ground() != light)
        b.get(address + 'tutorials/serve.html')
        dark = until(lambda: (o := ground()) != light and o) # it is remembered
        css(b, '#quarto-search input')[0].send_keys('beam_decode')
        until(lambda: any('beam_decode' in o.text for o in css(b, '.search-result')))
        shot(b, 'search')
        css(b, '#quarto-search input')[0].send_keys(Keys.ENTER)
        until(lambda: '/decode.html' in b.current_url)
        assert css(b, '#beam_decode') and ground() == dark
        assert [o.get_attribute('href').split('/')[-1] for o in css(b, '.page-navigation a')], 'no way to the page before and after'

def test_the_examples_of_contributing_run(tmp_path):
    "The Python of CONTRIBUTING.md, from top to bottom."
    code = re.findall(r'^```python\n(.*?)^```', (root/'CONTRIBUTING.md').read_text(encoding='utf-8'), re.M|re.S)
    assert len(code) == 4
    p = subprocess.run([sys.executable, '-c', '\n'.join(code)], cwd=root, env=dict(os.environ, MPLBACKEND='agg'), capture_output=True, text=True)
    assert p.returncode == 0, p.stderr[-3000:]

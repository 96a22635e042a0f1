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

def test_only_words_of_tables_that_are_too_wide_are_broken():
    sys.path.insert(0, str(root/'tools'))
    from build_docs import breakable
    def md(*rows): return '\n'.join(f'| {" | ".join(o)} |' for o in (rows[0], ['---']*len(rows[0]), *rows[1:]))
    narrow = md('abcdefghijkl', ['a_b=1', *['x']*11])
    assert breakable(narrow) == narrow # twelve columns, and room for all
    kept = '`a_b=1`', '$w_i=\\exp x_i$', 'https://x.org/a_b?c=d', '<https://x.org/a_b>', '[some_name](https://x.org/a_b)', '![a_b](c_d.png)', '<a href="c_d">a_b</a>'
    wide = md([*'abcdefgh'], [*kept, 'label_smoothing=0.1,one_more_setting=2,and_yet_another=3'])
    for o in ('`a_b=1`', '$w_i=\\exp x_i$', 'https://x.org/a_b?c=d', '<https://x.org/a_b>', '](https://x.org/a_b)', '![a_b](c_d.png)', '<a href="c_d">a_<wbr>b</a>', 'label_<wbr>smoothing=<wbr>0.1,'): assert o in breakable(wide), o
    around = f'Here a_b=1 stands.\n\n{wide}\n\nAnd $c_d=2$.'
    assert breakable(around) == around.replace(wide, breakable(wide)) # nothing outside of tables
    code = f'```\n{wide}\n```'
    assert breakable(code) == code
    html = lambda names: f'<style>.a_b {{}}</style><table class="data_frame"><tr><th></th>{"".join(f"<th>{o}</th>" for o in names)}</tr></table>'
    assert breakable(html(['a_b'])) == html(['a_b']) and 'class="data_frame"' in breakable(html(['a_name_of_length']*9)) and breakable(html(['a_name_of_length']*9)).count('<wbr>') == 27

def overrides(o, name):
    "Does the method of class `o` stand in for one of its bases, or is it an event of a callback or a step of a transform of fastai? What that does is said there."
    from fastai.callback.core import Callback, event
    from fasttransform import Transform
    return any(name in vars(b) for b in o.__mro__[1:]) or issubclass(o, Callback) and hasattr(event, name) or issubclass(o, Transform) and name in ('encodes','decodes','setups')

def test_only_callbacks_have_events():
    from fastai.callback.core import Callback
    def made(base): return type('C', (base,), dict(before_fit=lambda self: None))
    assert overrides(made(Callback), 'before_fit') and not overrides(made(object), 'before_fit')

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
    "The source of axe-core; or nothing, and why"
    if not shutil.which('npm'): return '','npm is not installed, so axe-core is not to be had'
    folder = tmp_path_factory.mktemp('axe')
    p = subprocess.run(['npm', 'pack', 'axe-core@4', '--silent'], cwd=folder, capture_output=True, text=True, timeout=120)
    if p.returncode: return '',f'axe-core is not to be had: {p.stderr[-200:]}'
    with tarfile.open(next(folder.glob('*.tgz'))) as t: return t.extractfile('package/axe.min.js').read().decode(),''

def size(b, width, height=900): b.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=False))
def theme(b, o): b.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=o)]))
def in_theme(b, o):
    "Change the theme and wait for all of it: the page marks itself as dark, and colours its code, a moment after its ground has changed"
    theme(b, o)
    until(lambda: b.execute_script("return document.documentElement.classList.contains('quarto-dark')") == (o == 'dark'))
def shot(b, name):
    "Keep a picture of the window where CI asks for it"
    if folder := os.environ.get('CAPTCHA_FASTAI_SCREENSHOTS'):
        Path(folder).mkdir(parents=True, exist_ok=True)
        b.save_screenshot(str(Path(folder)/f'{name}.png'))

check = """const done = arguments[arguments.length-1], said = v => v.nodes.map(n => v.id + ': ' + n.html.slice(0, 200) + (n.any[0] ? ' ' + n.any[0].message : ''));
axe.run(arguments[0], {runOnly: ['color-contrast','image-alt','svg-img-alt','link-name','button-name','document-title','html-has-lang'], resultTypes: ['violations']})
   .then(r => done([r.violations.flatMap(said), [...r.passes, ...r.violations].some(o => o.id == 'color-contrast')]), e => done([[String(e)], false]))"""
cut_off = """return [...document.querySelectorAll('main pre, main .sd-table, main .cell-output')].filter(o => o.scrollWidth > o.clientWidth + 1 && getComputedStyle(o).overflowX != 'visible')
   .map(o => `${o.scrollWidth} pixels in a box of ${o.clientWidth}: ${o.innerText.trim().slice(0, 80)}`)"""
both = {'index.html','get_started.html','decode.html','results.html','reliability.html','tutorials/ctc_in_pictures.html','contributing.html'} # every kind of content: these are read in both themes

def test_every_page_in_a_browser(tmp_path, address, pages, axe):
    source,missing = axe
    wrong,read,wanted = [],set(),set() # (page, what is wrong); (page, theme) in which axe has seen text, and is to see it
    with browser(tmp_path) as b:
        for i,name in enumerate(pages):
            themes = ('light','dark')[::(1,-1)[i%2]][:1+(name in both)] # the others in one theme each, by turns
            size(b, 1280); theme(b, themes[0])
            b.get(address + name)
            b.execute_script(source + "\ndocument.head.insertAdjacentHTML('beforeend', '<style>* { transition: none !important }</style>')") # no colours on their way to others
            for o in themes:
                in_theme(b, o); wanted.add((name, o))
                wrong += [(name, o, f) for f in b.execute_script(cut_off)] # themes have fonts of their own
                if i%10 == 0: shot(b, f'desk-{Path(name).stem}-{o}')
                if not source: continue
                found,seen = b.execute_async_script(check, 'body' if i%8 == 0 else 'main') # what is around the page is the same on all
                wrong += [(name, o, f) for f in found]
                if seen: read.add((name, o))
            size(b, 375, 812) # a phone
            if (w := b.execute_script('return document.documentElement.scrollWidth')) > 375: wrong.append((name, f'{w} pixels wide on a phone'))
            if b.execute_script("return [...document.images].some(o => !o.complete || !o.naturalWidth)"): wrong.append((name, 'a picture is missing'))
            wrong += [(name, o['message']) for o in b.get_log('browser') if o['level'] in ('SEVERE','WARNING') and 'fonts.googleapis.com' not in o['message']] # without a network, the theme takes the fonts of the machine
            if i%10 == 0: shot(b, f'phone-{Path(name).stem}')
    assert not wrong, json.dumps(wrong[:40], indent=1, ensure_ascii=False)
    assert {n for n,_ in wanted} == set(pages) and len(wanted) == len(pages) + len(both)
    if not source: pytest.skip(f'All is well but for what axe would have found: {missing}')
    assert read == wanted, f'axe has not read {sorted(wanted-read)}'

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

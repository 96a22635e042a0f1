"""Build the site into _docs: with Quarto if it is installed, else with smalldocs (`pip install smalldocs`).

    python tools/build_docs.py [--engine quarto|smalldocs] [--out FOLDER]

nbdev stages the notebooks in _proc (signatures, doc links); _stage gets copies of those under the names of their pages, and both engines render them to the same addresses."""
import argparse, base64, functools, importlib, inspect, json, os, re, shutil, subprocess, sys, warnings
from configparser import ConfigParser
from itertools import zip_longest
from pathlib import Path
from urllib.parse import urldefrag
import yaml
from nbdev.config import get_config, nbpath2html
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from nbdev.showdoc import BasicMarkdownRenderer

warnings.filterwarnings('ignore', category=FutureWarning, module=r'torch\b') # of what fastai still uses

root = Path(__file__).resolve().parent.parent
nbs,proc,stage = root/'nbs',root/'_proc',root/'_stage'
pages = {root/'CONTRIBUTING.md':'contributing.md', root/'CHANGELOG.md':'changelog.md', root/'benchmarks'/'README.md':'benchmarks.md', root/'README.md':'index.ipynb'} # what is no notebook, and its page

# names and links
def page_names():
    "Each source and the name of its page under `_stage`: the notebook's without the number."
    return {nb: str(nbpath2html(nb.relative_to(nbs)).with_suffix('.ipynb')) for nb in nbs.rglob('*.ipynb') if not any(o[0] in '._' for o in nb.relative_to(nbs).parts)} | pages

_link = re.compile(r'(\]\(|src="|href=")([^)\s"]+)')

def place(page, tag, anchors):
    "The address of a name: its own heading, else that of its class, else its page"
    own = next((o for o in (tag, tag.split('.')[0]) if o in anchors.get(page, ())), '')
    return f'{page}#{own}' if own else page

def relink(text, src, page, names, cfg, anchors):
    "`text` of the source `src` with links as its page needs them: to pages and pictures relative, to other files of the repository as it is on the web."
    home = f'{cfg.doc_host}{cfg.doc_baseurl}'.rstrip('/') + '/'
    up = '../'*(page.count('/'))
    def fix(m):
        start,(url,tag) = m.group(1),urldefrag(m.group(2))
        if url.startswith(home) and url != home: return f'{start}{up}{place(url[len(home):], tag, anchors)}' # nbdev's doc links
        if not url or ':' in url.split('/')[0]: return m.group(0)
        file = (src.parent/url).resolve()
        if file in names: new = up + names[file]
        elif nbs in file.parents: new = up + file.relative_to(nbs).as_posix() if file.exists() else url
        elif file.exists(): new = f'{cfg.git_url}/blob/{cfg.branch}/{file.relative_to(root).as_posix()}'
        else: new = url
        return start + new + (f'#{tag}' if tag else '')
    text = re.sub(r'\[\[(`[^`]+`)\]\([^)]*\)\]', r'[\1]', text) # a name in a link's own text, which nbdev has made a link, too
    return re.sub(_link, fix, text.replace('#LNone)', ')')) # a line that nbdev has not found

# pictures
def plain(md):
    "The last sentence of a Markdown text, without its marks"
    text = re.sub(r'^#.*$', '', re.sub(r'```.*?```', '', md, flags=re.S), flags=re.M)
    paras = [re.sub(r'\s+', ' ', o).strip() for o in re.split(r'\n\s*\n', text) if o.strip() and not o.lstrip().startswith(('|', '- ', ':::', '<!--', '---'))]
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', paras[-1]) if paras else ''
    return re.split(r'(?<=[.!?])\s+(?=[A-Z])', re.sub(r'[*`]', '', text))[-1].rstrip(':').strip()

def has_picture(cell): return any(k.startswith('image/') for o in cell.get('outputs', []) for k in o.get('data', {}))

def drawn_by(source, docs):
    "What the function that draws says of itself: the first line of its docstring"
    for name in reversed(re.findall(r'(?:^|\.|\b)((?:plot|show)_\w+|show)\(', source)):
        if name in docs: return docs[name]

def add_alts(cells, docs):
    "Each picture that has no `fig-alt` of its own gets what its function says of itself, the heading, and the sentence before it."
    head,before = '',''
    for c in cells:
        source = c['source'] = ''.join(c['source'])
        if c['cell_type'] == 'markdown' and source.strip() and not source.startswith(('<!--', ':::')):
            head = (re.findall(r'^#+ +([^{\n]+)', source, re.M) or [head])[-1].strip(' `')
            before = plain(source)
        elif c['cell_type'] == 'code' and has_picture(c) and '#| fig-alt' not in source:
            words = [o.rstrip('.?!:') for o in dict.fromkeys((drawn_by(source, docs), head, before)) if o]
            c['source'] = f'#| fig-alt: {json.dumps(". ".join(words)+".", ensure_ascii=False)}\n{source}'
    return cells

# outputs
def log_table(text):
    "fastai's table of a training as Markdown, for a page that is narrower than a terminal; None if `text` is something else"
    rows = [re.split(r' {2,}', l.strip()) for l in text.strip().splitlines()]
    if rows and rows[0][:2] == ['epoch','train_loss'] and {len(o) for o in rows} == {len(rows[0])}:
        return '\n'.join(f'| {" | ".join(o)} |' for o in [rows[0], ['---']*len(rows[0]), *rows[1:]])

_whole = r'`[^`]*`|\$[^$\n|]*\$|!\[[^\]]*\]\([^)]*\)|\]\([^)]*\)|https?://[^\s|]*|<[^>]*>' # code, formulas, addresses and tags
page_width = 95 # of a table, in characters of eight pixels and a little to spare

def least_width(rows):
    "Characters that a table needs at least: the longest word of each column, and two for the space beside it"
    def longest(cell): return max(map(len, re.split(r'\s|-', re.sub(r'<[^>]*>|\]\([^)]*\)|[*`\[]', ' ', cell))))
    return sum(max(map(longest, col)) + 2 for col in zip_longest(*rows, fillvalue=''))

def breakable(text):
    "In a table whose words are wider than the page, `name_of_one=value` may be broken, and nothing else"
    def fix(m):
        t = m.group(0)
        if t.startswith('```'): return t
        rows = [re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', o, re.S) for o in t.split('</tr>')] if t.startswith('<') else [o.strip('|').split('|') for o in t.splitlines() if o.strip('|-: ')]
        if least_width(rows) <= page_width: return t
        return re.sub(rf'{_whole}|(?<=\w)[_=](?=\w)', lambda o: o.group(0) + '<wbr>'*(o.group(0) in '_='), t)
    return re.sub(r'^```.*?^```|<table.*?</table>|(?:^\|[^\n]*\|\n?)+', fix, text, flags=re.M|re.S)

def png_width(data):
    "How wide a picture of Matplotlib is to be shown, which has two pixels for each of the page; None for other pictures"
    head = base64.b64decode(data[:120])
    if b'Software\0Matplotlib' in head: return int.from_bytes(head[16:20], 'big')//2

def sized(html):
    "Pictures at the size that they were drawn for"
    def fix(m): return m.group(0) + (f' width="{w}"' if (w := png_width(m.group(1))) else '')
    return re.sub(r'<img [^>]*?src="data:image/png;base64,([A-Za-z0-9+/]{120})[A-Za-z0-9+/=\s]*"', fix, html)

# the names of the library
def public_names():
    "Every public name: (module, name, address as nbdev has it, object)"
    from captcha_fastai._modidx import d
    for mod,syms in d['syms'].items():
        m,done = importlib.import_module(mod),set()
        for full,(address,_) in syms.items():
            name = full[len(mod)+1:]
            if any(o.startswith('_') for o in name.split('.')): continue
            done.add(name)
            yield mod,name,address,_find(m, name)
        for name in getattr(m, '__all__', []):
            if name not in done and not name.startswith('_'): yield mod,name,address.split('#')[0],None

def _find(o, name):
    for part in name.split('.'): o = getattr(o, part, None) or vars(sys.modules['fastai.vision.all']).get(part)
    return o

def said(o):
    "The first line of its own docstring, not of one that it inherits"
    return inspect.cleandoc((getattr(o, 'fget', None) or o).__doc__ or '').split('\n')[0] if o is not None else ''

def names_page(rows, anchors):
    "A Markdown page of them, by module"
    out = ['---\ntitle: Every name\ndescription: The public names of the library, each with its page\n---\n']
    for mod in dict.fromkeys(o[0] for o in rows):
        out.append(f'\n## {mod.split(".")[-1]}\n')
        for _,name,address,o in sorted((r for r in rows if r[0] == mod), key=lambda r: r[1].lower()):
            if '.' not in name or said(o): out.append(f'- [`{name}`]({place(*urldefrag(address), anchors)})' + (f': {said(o)}' if said(o) else ''))
    return '\n'.join(out).replace('.html', '.ipynb') + '\n'

_events = re.compile(r'\*, after_create:NoneType=None,[^)]*?after_fit:NoneType=None,?\s*')
_home = re.compile(r'\b(?:fastai|captcha_fastai|collections|pathlib|typing|PIL)\.(?:[a-z_0-9]+\.)*(?=[A-Z])')

def signature(md):
    "A rendered signature without what nobody has written: the type of None, where a class lives, the events that every fastai callback takes"
    def fix(m): return re.sub(_home, '', re.sub(_events, '', m.group(0)).replace(':NoneType=None', '=None')).replace('(\n    )', '()')
    md = re.sub(r'^(#+ \S*?)__(\w+)__$', r'\1\_\_\2\_\_', md, flags=re.M) # a name like __getitem__ is not bold
    return re.sub(r'^```python\n(?:def|class) .*?^```', fix, md, flags=re.S|re.M)

def line_of(o):
    "The end of a link to the line where `o` begins; nothing if that is not to be found"
    try: return f'#L{inspect.getsourcelines(inspect.unwrap(getattr(o, "fget", None) or o))[1]}'
    except (OSError, TypeError): return ''

def method(name, o): return BasicMarkdownRenderer(o, name=name, title_level=4)._repr_markdown_().replace('#LNone', line_of(o))

def add_methods(cells, methods):
    "Behind each class that is shown, those of its methods that have a docstring and are not shown on their own."
    shown = {m.group(1) for c in cells if (m := re.search(r'^show_doc\((.+?)\)', ''.join(c['source']), re.M))}
    for c in cells:
        yield c
        m = re.search(r'^show_doc\((\w+)\)', ''.join(c['source']), re.M)
        for name,o in methods.get(m.group(1), []) if m else []:
            if name not in shown and said(o): yield dict(cell_type='markdown', metadata={}, source=signature(method(name, o)))

# the steps
def make_stage():
    "Write `_stage`; the sidebar's entries come back"
    os.chdir(root)
    sys.path.insert(0, str(root))
    cfg = get_config(root)
    refresh_quarto_yml()
    proc_nbs()
    names,rows = page_names(),list(public_names())
    docs = {name.split('.')[-1]:said(o) for _,name,_,o in rows if said(o)}
    books = {src:json.loads((proc/src.relative_to(nbs)).read_text(encoding='utf-8')) for src in names if src.suffix == '.ipynb'}
    for src,nb in books.items():
        methods = {}
        for _,name,address,o in rows:
            if address.split('#')[0] == Path(names[src]).with_suffix('.html').as_posix() and '.' in name: methods.setdefault(name.split('.')[0], []).append((name, o))
        nb['cells'] = list(add_methods(nb['cells'], methods))
    anchors = {Path(names[src]).with_suffix('.html').as_posix():headings(nb) for src,nb in books.items()}
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(proc, stage, ignore=lambda d,fs: [f for f in fs if f.endswith('.ipynb') or f == cfg.doc_path.name])
    for src,page in names.items():
        out,link = stage/page,functools.partial(relink, src=src, page=page, names=names, cfg=cfg, anchors=anchors)
        if src in books: out.write_text(staged(books[src], link, docs), encoding='utf-8')
        elif page.endswith('.md'): out.write_text(link(src.read_text(encoding='utf-8')), encoding='utf-8')
    (stage/'names.md').write_text(names_page(rows, anchors), encoding='utf-8')
    settings = ConfigParser(delimiters=['=']); settings.read(root/'settings.ini', encoding='utf-8')
    site = yaml.safe_load((nbs/'nbdev.yml').read_text(encoding='utf-8'))
    site.pop('format-links')
    site['website']['description'] = settings['DEFAULT']['description']
    (stage/'nbdev.yml').write_text(yaml.dump(site), encoding='utf-8')
    side = yaml.safe_load((nbs/'sidebar.yml').read_text(encoding='utf-8'))
    rename(side['website']['sidebar']['contents'], names)
    (stage/'sidebar.yml').write_text(yaml.dump(side, sort_keys=False), encoding='utf-8')
    return side['website']['sidebar']['contents'],site['website']

def headings(nb):
    "The headings of one word, which are the anchors of names"
    texts = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'markdown'] + [''.join(o.get('data', {}).get('text/markdown', '')) for c in nb['cells'] for o in c.get('outputs', [])]
    return {o.strip('`').lower() for t in texts for o in re.findall(r'^#+ (\S+)$', t, re.M)}

def staged(nb, link, docs):
    "The text of a staged notebook as its page needs it"
    for i,c in enumerate(add_alts(nb['cells'], docs)):
        if i == 0 and c['cell_type'] == 'raw': c['source'] = re.sub(r'^output-file:.*\n', '', c['source'], flags=re.M) # the file has its page's name already
        if c['cell_type'] == 'markdown': c['source'] = link(c['source'])
        for j,o in enumerate(c.get('outputs', [])):
            if o.get('name') == 'stdout' and (table := log_table(''.join(o['text']))): c['outputs'][j] = o = dict(output_type='display_data', metadata={}, data={'text/markdown': table})
            data = o.get('data', {})
            if 'text/markdown' in data: data['text/markdown'] = breakable(link(signature(''.join(data['text/markdown']))))
            if 'text/html' in data: data['text/html'] = breakable(''.join(data['text/html']))
            if 'image/png' in data and (w := png_width(''.join(data['image/png']))): o['metadata'] = {'image/png': {'width': w}} # for Quarto
    return json.dumps(nb, ensure_ascii=False, indent=1)

def rename(entries, names):
    "The sidebar's notebooks by the names of their pages, in place"
    for i,e in enumerate(entries):
        if isinstance(e, str): entries[i] = names.get((nbs/e).resolve(), e)
        else:
            if 'href' in e: e['href'] = names.get((nbs/e['href']).resolve(), e['href'])
            rename(e.get('contents', []), names)

def render(engine, doc_path):
    "Run the engine in `_stage`; a warning is an error"
    if engine == 'quarto': # smalldocs takes its widths from styles.css
        settings = yaml.safe_load((stage/'_quarto.yml').read_text(encoding='utf-8'))
        settings['format']['html']['grid'] = {'sidebar-width':'210px', 'body-width':'960px', 'margin-width':'150px', 'gutter-width':'1.5rem'}
        (stage/'_quarto.yml').write_text(yaml.dump(settings, sort_keys=False), encoding='utf-8')
    command = ['quarto', 'render', str(stage), '--no-execute'] if engine == 'quarto' else [sys.executable, '-m', 'smalldocs.cli', 'render', str(stage), '--strict']
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8', errors='replace')
    warned = []
    for line in p.stdout:
        print(line, end='', flush=True)
        if re.search(r'\bWARN', line): warned.append(line)
    if p.wait() or warned: sys.exit(f'{engine} did not build the site without a warning (status {p.returncode}).')
    return stage/doc_path

def llms_txt(entries, site):
    "The index for language models: sections as in the sidebar, a line for each page"
    base,out = site['site-url'].rstrip('/') + '/',[f"# {site['title']}", '', f"> {site['description']}", '']
    def line(page):
        text = (stage/page).read_text(encoding='utf-8')
        if page.endswith('.ipynb'): text = ''.join(json.loads(text)['cells'][0]['source'])
        fm = re.match(r'---\n(.*?)\n---', text, re.S)
        fm = yaml.safe_load(fm.group(1)) if fm else {}
        title = fm.get('title') or re.search(r'^# (.+)', text, re.M).group(1)
        return f"- [{title}]({base}{Path(page).with_suffix('.llms.md').as_posix()})" + (f": {fm['description']}" if fm.get('description') else '')
    def walk(entries, section):
        here = [line(e if isinstance(e, str) else e['href']) for e in entries if isinstance(e, str) or 'href' in e and 'contents' not in e]
        if here: out.extend([f'## {section}', '', *here, ''])
        for e in entries:
            if isinstance(e, dict) and 'contents' in e: walk(e['contents'], e['section'] if section == 'Start' else f"{section}: {e['section']}")
    walk(entries, 'Start')
    return '\n'.join(out)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--engine', choices=['quarto','smalldocs'], default='quarto' if shutil.which('quarto') else 'smalldocs')
    p.add_argument('--out', type=Path, default=root/'_docs', help='folder of the site; what is in it is replaced')
    args = p.parse_args()
    out = args.out.resolve()
    entries,site = make_stage()
    made = render(args.engine, site.get('output-dir', '_docs'))
    for page in made.rglob('*.html'): page.write_text(sized(page.read_text(encoding='utf-8')), encoding='utf-8')
    (made/'llms.txt').write_text(llms_txt(entries, site), encoding='utf-8')
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(made, out)
    print(f'The site is in {out}: open {out/"index.html"}')

if __name__ == '__main__': main()

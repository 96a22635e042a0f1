'use strict';
// Pictures come in by choosing, dropping or pasting; they are sent a few at a time, and the service answers with one card for each.
const $ = s => document.querySelector(s);
const [list, status, bar, options] = ['#readings', '#status', '#bar', '#options'].map($);
const maxImages = Math.min(8, +document.body.dataset.maxImages), maxBytes = +document.body.dataset.maxBytes - 20000;
const pictures = new Map();             // card -> {file, url}
let queue = [], busy = false;

const button = (text, label) => Object.assign(document.createElement('button'), {type: 'button', className: 'remove', textContent: text, title: 'Remove', ariaLabel: label});

function waitingCard(file, url) {
  const card = $('#waiting').content.firstElementChild.cloneNode(true);
  card.setAttribute('aria-label', `${file.name}: reading`);
  card.querySelector('.file').textContent = file.name;
  card.querySelector('footer').append(button('×', `Remove ${file.name}`));
  show(card, file, url);
  return card;
}

function show(card, file, url) {
  const img = card.querySelector('img');
  img.onerror = () => img.classList.add('unseen');
  img.src = url;
  pictures.set(card, {file, url});
}

function add(files) {
  for (const file of files) {
    const card = waitingCard(file, URL.createObjectURL(file));
    list.append(card);
    queue.push(card);
  }
  tell();
  work();
}

function swap(card, made) {
  const {file, url} = pictures.get(card), focused = card.contains(document.activeElement);
  pictures.delete(card);
  show(made, file, url);
  card.replaceWith(made);
  if (focused) made.querySelector('.remove').focus();
}

function fail(card, why) {
  const p = Object.assign(document.createElement('p'), {className: 'error', textContent: why});
  card.querySelector('.wait')?.replaceWith(p);
  card.classList.remove('waiting');
  card.classList.add('failed');
  card.setAttribute('aria-label', `${pictures.get(card).file.name}: ${why}`);
}

// The next cards to send: not too many, not too large together.
function nextBatch() {
  const batch = [];
  let bytes = 0;
  while (queue.length && batch.length < maxImages) {
    const {size} = pictures.get(queue[0])?.file ?? {size: 0};
    if (batch.length && bytes + size > maxBytes) break;
    const card = queue.shift();
    if (!pictures.has(card)) continue;  // removed while it waited
    if (size > maxBytes) { fail(card, `This file is larger than ${maxBytes / 1e6 | 0} MB.`); continue; }
    batch.push(card);
    bytes += size;
  }
  return batch;
}

async function send(batch) {
  if (!batch.length) return;
  const form = new FormData();
  for (const card of batch) { const {file} = pictures.get(card); form.append('images', file, file.name); }
  for (const {name, value} of options.elements) if (value) form.append(name, name === 'threshold' ? value / 100 : value);
  const answer = await fetch('/read', {method: 'POST', body: form});
  const text = await answer.text();
  if (answer.status === 503) { await new Promise(done => setTimeout(done, 1000)); return send(batch.filter(card => pictures.has(card))); }
  if (!answer.ok) { let why; try { why = JSON.parse(text).error; } catch { } throw new Error(why || `The service has answered ${answer.status}.`); }
  const made = Object.assign(document.createElement('template'), {innerHTML: text}).content.children;
  [...made].forEach((card, i) => pictures.has(batch[i]) && swap(batch[i], card));
}

async function work() {
  if (busy) return;
  busy = true;
  for (let batch = nextBatch(); batch.length || queue.length; batch = nextBatch()) {
    if (batch.length) {
      try { await send(batch); }
      catch (e) {
        const why = e instanceof TypeError ? 'The service can\'t be reached; is it still running?' : e.message;
        for (const card of batch) if (pictures.has(card)) fail(card, why);
      }
    }
    tell();
  }
  busy = false;
  tell();
}

function tell() {
  const n = pictures.size, waiting = list.querySelectorAll('.waiting').length, read = list.querySelectorAll('output').length, not = n - read - waiting;
  document.body.classList.toggle('some', n > 0);
  bar.hidden = !n;
  $('#csv').disabled = !list.querySelector('[data-row]');
  status.textContent = waiting ? `${n - waiting} of ${n} done` : `${read} ${read === 1 ? 'picture' : 'pictures'} read` + (not ? `, ${not} not` : '');
}

function remove(card) {
  URL.revokeObjectURL(pictures.get(card).url);
  pictures.delete(card);
  card.remove();
}

// Folders are opened, and what is in them comes in the order of its names.
async function dropped(items) {
  const open = entry => entry.isFile
    ? new Promise((done, failed) => entry.file(f => done([f]), failed))
    : new Promise((done, failed) => {
      const reader = entry.createReader(), all = [];
      const more = () => reader.readEntries(some => some.length ? (all.push(...some), more()) : done(all), failed);
      more();
    }).then(all => Promise.all(all.map(open))).then(files => files.flat().sort((a, b) => a.name < b.name ? -1 : 1));
  const entries = [...items].filter(o => o.kind === 'file').map(o => [o.webkitGetAsEntry?.(), o.getAsFile()]);
  return (await Promise.all(entries.map(([entry, file]) => entry ? open(entry).catch(() => file ? [file] : []) : [file]))).flat();
}

$('#files').addEventListener('change', e => { add(e.target.files); e.target.value = ''; });
addEventListener('dragover', e => { e.preventDefault(); document.body.classList.add('over'); });
addEventListener('dragleave', e => e.relatedTarget || document.body.classList.remove('over'));
addEventListener('drop', async e => { e.preventDefault(); document.body.classList.remove('over'); add(await dropped(e.dataTransfer.items)); });
addEventListener('paste', e => {
  const files = [...e.clipboardData.files];
  if (!files.length) return;
  e.preventDefault();
  add(files.map((f, i) => new File([f], f.name === 'image.png' ? `pasted-${pictures.size + i + 1}.png` : f.name, {type: f.type})));
});
list.addEventListener('click', e => {
  const card = e.target.closest('.remove')?.closest('.card');
  if (!card) return;
  const next = card.nextElementSibling ?? card.previousElementSibling;
  remove(card);
  (next?.querySelector('.remove') ?? $('#files')).focus();
  tell();
});
$('#clear').addEventListener('click', () => { queue = []; [...pictures.keys()].forEach(remove); tell(); $('#files').focus(); });
$('#csv').addEventListener('click', e => {
  const rows = [...list.querySelectorAll('[data-row]')].map(card => card.dataset.row);
  const url = URL.createObjectURL(new Blob([e.target.dataset.header, ...rows], {type: 'text/csv'}));
  Object.assign(document.createElement('a'), {href: url, download: 'readings.csv'}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});
options.addEventListener('submit', e => e.preventDefault());
options.addEventListener('change', () => { // read everything again
  if (!options.reportValidity()) return;
  for (const [card, {file, url}] of [...pictures]) {
    if (queue.includes(card)) continue; // one that is being read already is forgotten: its answer would be an old one
    const fresh = waitingCard(file, url);
    pictures.delete(card);
    card.replaceWith(fresh);
    queue.push(fresh);
  }
  tell();
  work();
});
